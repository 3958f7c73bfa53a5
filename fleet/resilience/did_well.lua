-- A process says what it has done well. An open breaker is closed by a probe that was answered, and by any other call that
-- was sent after it opened; one that opened because nothing was answered is closed by any answer.
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
local is_later = now - successes[BEGAN_AGE_US] > state[OPENED_AT]
local is_heard = texts.silent == '1' and successes[CALLS] > 0 and now - successes[AGE_US] > state[OPENED_AT]
if state[OPENED_AT] > 0 and (successes[IS_PROBE] == 1 or is_later or is_heard) then
  close(state)
  said.turned = WAS_CLOSED
end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
