-- Takes a message away from a worker whose lease of it has run out. One that comes back meanwhile finds its lease lost.
--
-- KEYS     unacked   hash: delivery tag -> list key, newline, message                  no TTL
--          index     sorted set: delivery tag -> Unix time of the lease's last renewal  no TTL
-- ARGV     tag       under which it is held
--          lease_s   seconds since that time after which nobody holds it
-- Reply    1 taken away;  0 somebody holds it, or it has gone
local renewed = redis.call('ZSCORE', KEYS[INDEX], ARGV[TAG])
local now = redis.call('TIME')
if renewed and now[1] + now[2] / 1e6 - renewed < ARGV[LEASE_S] + 0 then return 0 end
redis.call('ZREM', KEYS[INDEX], ARGV[TAG])
return redis.call('HDEL', KEYS[UNACKED], ARGV[TAG])
