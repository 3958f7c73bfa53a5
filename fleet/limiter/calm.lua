-- The provider is back after an outage: for a while nobody finds a burst, so that what has waited goes at the pace of the
-- limit, also while the road fills again, which would earn one.
--
-- KEYS     state      see limit.lua
-- ARGV     calm_us    how long
-- Reply    packed: code, now_us
-- Codes    1 it is calm
local state = read_state(KEYS[STATE])
state[CALM_UNTIL] = max(state[CALM_UNTIL], now + tonumber(ARGV[CALM_US]))
write_state(KEYS[STATE], state)
return reply(1, now)
