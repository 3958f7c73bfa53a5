-- A process says what it has done well. An open breaker is closed by a probe that was answered, and by any other call that
-- was sent after it opened.
--
-- KEYS     breaker       see breaker.lua
-- ARGV     fingerprint   of the caller's settings and key
--          successes     packed: what the process has not said yet
--          by            who did well last there
-- Reply    see breaker.lua
-- Codes    0 closed;  1 open
local successes = { struct.unpack(SUCCESSES_FORMAT, ARGV[SUCCESSES]) }
local state, texts = read(KEYS[BREAKER])
local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
hear(state, texts, successes, ARGV[BY])
if state[OPENED_AT] > 0 and (successes[IS_PROBE] == 1 or now - successes[BEGAN_AGE_US] > state[OPENED_AT]) then
  close(state)
  said.turned = WAS_CLOSED
end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
