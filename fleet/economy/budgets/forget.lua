-- Forgets what a scope has spent, in all of its periods; what is reserved stays, for its calls are under way.
--
-- KEYS     spent   of the scope, see budget.lua
-- ARGV     none
-- Reply    whole micro-dollars that it had spent in all
local state = read_state(KEYS[SPENT])
local had = state[MICROS + PERIODS]
for p = 1, PERIODS do
  state[MICROS + p], state[REST + p], state[TOLD + p] = 0, 0, 0
end
state[START + PERIODS] = now
write_state(KEYS[SPENT], state)
return format('%d', had)
