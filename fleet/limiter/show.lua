-- Read how a limit stands; changes nothing.
--
-- KEYS     state, facts   see limit.lua
--          queue          zset: ticket -> order
--          leases         zset: ticket -> expiry
-- ARGV     none
-- Reply    {code, 0, now_us, what an operator set, what was learnt, what was seen, who told of the latest hold, tickets
--          waiting, calls in flight, the numbers of the state as text}
-- Codes    1 read
local set, learnt, seen, held_by, beside = unpack(call('HMGET', KEYS[FACTS], 'set', 'taught', 'told', 'held_by', 'beside'))
local state = read_state(KEYS[STATE], beside)
for k = 1, #state do state[k] = format('%.17g', state[k]) end
local flying = call('ZCOUNT', KEYS[LEASES], whole(now), '+inf')
local waiting = call('ZCARD', KEYS[QUEUE])
return { 1, 0, now, set or '', learnt or '', seen or '', held_by or '', waiting, flying, state }
