#!/bin/sh
# Copies what is mounted into memory, readable by its owner only, as Fleet asks of keys; and writes how Redis is reached.
set -eu
umask 077
password=$(cat /secrets/redis/password)
# It stands in URLs, in quotes of this shell and in Redis' own files: nothing that any of them reads otherwise.
case "$password" in
"" | *[!A-Za-z0-9._~-]*)
    echo "secrets.sh: expected a Redis password of letters, digits and -._~ only, got others or none; write another one" >&2
    exit 2
    ;;
esac
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
