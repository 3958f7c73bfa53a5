-- The provider is back after an outage: nobody finds a burst, so that what has waited goes at the pace of the limit.
--
-- KEYS     state, facts     see limit.lua
-- ARGV     terms            packed
-- Reply    packed: code, now_us
-- Codes    1 its bursts are spent
local state = read_state(KEYS[STATE])
local set, learnt = unpack(call('HMGET', KEYS[FACTS], 'set', 'learnt'))
local terms = read_terms(ARGV[TERMS], set, learnt)
spend_bursts(state, terms, max(now, state[HELD_UNTIL]))
write_state(KEYS[STATE], state)
return reply(1, now)
