-- A process says that calls have had no answer for far longer than usual there: open the breaker, unless the fleet has heard
-- of an answer meanwhile.
--
-- KEYS     breaker       see breaker.lua
-- ARGV     fingerprint   of the caller's settings and key
--          successes     packed: what the process has not said yet
--          by            who did well last there
--          lasted_us     for how long
--          cause, told   what is told of it
-- Reply    see breaker.lua
-- Codes    0 closed;  1 open
local successes = { struct.unpack(SUCCESSES_FORMAT, ARGV[SUCCESSES]) }
local state, texts = read(KEYS[BREAKER])
local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
hear(state, texts, successes, ARGV[BY])
-- What is closed was asked by a probe that was answered: silence counts from then on.
local silent_us = max(SILENT_US, tonumber(ARGV[LASTED_US]))
if state[OPENED_AT] == 0 and now - max(state[WELL_AT], state[CLOSED_AT]) >= silent_us then
  open(state, texts, {
    cause = ARGV[CAUSE], told = ARGV[TOLD], fingerprint = ARGV[FINGERPRINT], passes_at = 0, is_silent = true,
  })
  said.turned = WAS_OPENED
end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
