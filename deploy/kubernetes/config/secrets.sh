#!/bin/sh
# Copies what is mounted into memory, readable by its owner only, as Fleet asks of keys; and writes how Redis is reached.
set -eu
umask 077
password=$(cat /secrets/redis/password)
hosts="sentinel://:$password@redis-0.redis:26379;sentinel://redis-1.redis:26379;sentinel://redis-2.redis:26379/0"
{
    printf "export FLEET_REDIS__URL='%s'\n" "$hosts"
    printf "export FLEET_REDIS__MASTER_NAME=fleet\n"
    printf "export FLEET_REDIS__SENTINEL_PASSWORD='%s'\n" "$password"
    printf "export FLEET_REDIS__REPLICAS=1\n"
} > /run/fleet/redis.env
for file in /secrets/keys/*; do
    [ -f "$file" ] && cp "$file" "/run/fleet/$(basename "$file").key"
done
if [ -f /secrets/flower/password ]; then cp /secrets/flower/password /var/lib/fleet/flower.password; fi
