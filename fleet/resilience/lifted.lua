-- The pools' gates are open after a closing: nobody else need open them.
--
-- KEYS     breaker   see breaker.lua
-- ARGV     lift_at   the number by which the caller was told to
-- Reply    1 noted;  0 it was opened again, or somebody else was told to meanwhile
local state, texts = read(KEYS[BREAKER])
if state[LIFT_AT] ~= tonumber(ARGV[LIFT_AT]) then return 0 end
state[LIFT_AT] = 0
write(KEYS[BREAKER], state, texts)
return 1
