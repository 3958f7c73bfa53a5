-- Drop the ticket of a caller that does not want its turn any more.
--
-- KEYS     queue   zset: ticket -> order                       TTL of both: as acquire.lua left it
--          due     zset: ticket -> time at which it asks again
-- ARGV     ticket
-- Reply    packed: code, 0, now_us
-- Codes    1 dropped;  0 there was none
call('ZREM', KEYS[DUE], ARGV[TICKET])
return reply(call('ZREM', KEYS[QUEUE], ARGV[TICKET]), 0, now)
