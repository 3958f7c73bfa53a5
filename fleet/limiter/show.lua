-- Read how a limit stands; changes nothing.
--
-- KEYS     1 state, 2 facts (see limit.lua)  3 queue (zset)  4 leases (zset)
-- ARGV     none
-- Reply    {code, 0, now_us, what an operator set, what was learnt, tickets waiting, calls in flight, the 39 numbers of
--          the state as text}
-- Codes    1 read
local facts = call('HMGET', KEYS[2], 'set', 'learnt')
local state = read_state(KEYS[1])
for k = 1, #state do state[k] = format('%.17g', state[k]) end
local flying = call('ZCOUNT', KEYS[4], whole(now), '+inf')
return {1, 0, now, facts[1] or '', facts[2] or '', call('ZCARD', KEYS[3]), flying, state}
