-- Calls fail here in a row while those of other breakers do: open this one, if all of them in one row would open one.
--
-- KEYS     breaker       see breaker.lua
-- ARGV     fingerprint   of the caller's settings and key
--          others        failures in a row under other limits
--          cause, told   why
-- Reply    see breaker.lua
-- Codes    0 closed;  1 open
local state, texts = read(KEYS[BREAKER])
local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
local own, others = row(state), tonumber(ARGV[OTHERS])
if state[OPENED_AT] == 0 and own >= ROW_IN_COMMON and own + others >= unlikely_row(state, YOUNG_IN_A_ROW) then
  open(state, texts, { cause = ARGV[CAUSE], told = ARGV[TOLD], fingerprint = ARGV[FINGERPRINT], passes_at = 0 })
  said.turned = WAS_OPENED
end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
