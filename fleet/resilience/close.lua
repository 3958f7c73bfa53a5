-- An operator closes a breaker: it begins anew, whatever it was open for.
--
-- KEYS     breaker   see breaker.lua
-- ARGV     none
-- Reply    see breaker.lua; `turned` is 2 when it was open
-- Codes    0 closed
local state, texts = read(KEYS[BREAKER])
local was_open = state[OPENED_AT] > 0
close(state)
local replied = reply(state, texts, { turned = was_open and WAS_CLOSED or nil })
write(KEYS[BREAKER], state, texts)
return replied
