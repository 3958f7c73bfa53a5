-- Drop the ticket of a caller that does not want its turn any more.
--
-- KEYS     1 queue (zset, ticket -> order)  2 due (zset, ticket -> time at which it asks again)
-- ARGV     1 ticket
-- Reply    packed: code, 0, now_us
-- Codes    1 dropped;  0 there was none
call('ZREM', KEYS[2], ARGV[1])
return reply(call('ZREM', KEYS[1], ARGV[1]), 0, now)
