#!/bin/sh
# Starts Redis or its Sentinel in one of three pods, or asks one whether it answers. The password comes from a file and
# goes into files in memory or on the pod's own volume: no process list and no environment shows it.
#
#   start.sh redis | sentinel | ping PORT
set -eu
umask 077
REDISCLI_AUTH=$(cat /run/secrets/redis/password)
own="$(hostname).redis"

# Who is the master: by the first Sentinel that answers, else by what this pod's own wrote down; redis-0 at the very first.
master() {
    for pod in redis-0 redis-1 redis-2; do
        found=$(REDISCLI_AUTH="$REDISCLI_AUTH" timeout 2 redis-cli -h "$pod.redis" -p 26379 --raw \
            sentinel get-master-addr-by-name fleet 2>/dev/null | head -n 1) || found=""
        case "$found" in redis-*) echo "$found"; return ;; esac
    done
    known=$(sed -n 's/^sentinel monitor fleet \([^ ]*\) .*/\1/p' /data/sentinel.conf 2>/dev/null) || known=""
    echo "${known:-redis-0.redis}"
}

case "$1" in
redis)
    {
        cat /etc/redis-start/redis.conf
        printf 'requirepass "%s"\nmasterauth "%s"\n' "$REDISCLI_AUTH" "$REDISCLI_AUTH"
        printf 'replica-announce-ip %s\n' "$own"
        first=$(master)
        if [ "$first" != "$own" ]; then printf 'replicaof %s 6379\n' "$first"; fi
    } > /run/redis/redis.conf
    exec redis-server /run/redis/redis.conf
    ;;
sentinel)
    # Kept on the volume: Sentinel writes into it whom it knows.
    if [ ! -s /data/sentinel.conf ]; then
        {
            printf 'port 26379\ndir /data\nprotected-mode no\nrequirepass "%s"\n' "$REDISCLI_AUTH"
            printf 'sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel announce-ip %s\n' "$own"
            printf 'sentinel monitor fleet %s 6379 2\nsentinel auth-pass fleet %s\n' "$(master)" "$REDISCLI_AUTH"
            printf 'sentinel sentinel-pass %s\n' "$REDISCLI_AUTH"
            printf 'sentinel down-after-milliseconds fleet 5000\nsentinel failover-timeout fleet 30000\n'
        } > /data/sentinel.conf.new
        mv /data/sentinel.conf.new /data/sentinel.conf
    fi
    exec redis-server /data/sentinel.conf --sentinel
    ;;
ping)
    REDISCLI_AUTH="$REDISCLI_AUTH" timeout 4 redis-cli -p "$2" ping | grep -q PONG
    ;;
*)
    echo "start.sh: expected redis, sentinel or ping PORT, got $1" >&2
    exit 2
    ;;
esac
