-- The provider is back after an outage: nobody finds a burst, so that what has waited goes at the pace of the limit, also
-- while the road fills again, which would earn one.
--
-- KEYS     state, facts   see limit.lua
-- ARGV     none
-- Reply    packed: code, now_us
-- Codes    1 it is calm
local state = read_state(KEYS[STATE], call('HGET', KEYS[FACTS], 'beside'))
state[CALM_AT] = now
write_state(KEYS[STATE], KEYS[FACTS], state)
return reply(1, now)
