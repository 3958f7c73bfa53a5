-- Drop the ticket of a caller that does not want its turn any more, or of a call that is counted no more among those at
-- the same time: it hangs, while calls that left later are answered.
--
-- KEYS     queue    zset: ticket -> order                       TTL of all: as acquire.lua left it
--          due      zset: ticket -> time at which it asks again
--          leases   zset: ticket -> expiry
-- ARGV     ticket
-- Reply    packed: code, 0, now_us
-- Codes    1 dropped;  0 there was none that waited
call('ZREM', KEYS[LEASES], ARGV[TICKET])
call('ZREM', KEYS[DUE], ARGV[TICKET])
return reply(call('ZREM', KEYS[QUEUE], ARGV[TICKET]), 0, now)
