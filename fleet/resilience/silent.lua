-- A process says that calls have had no answer for far longer than usual there: open the breaker once so many of the fleet
-- have none, unless it has heard of an answer meanwhile.
--
-- KEYS     breaker       see breaker.lua; field `quiet`: who said so in the last seconds, "process:calls:at_us ..."
-- ARGV     fingerprint   of the caller's settings and key
--          successes     packed: what the process has not said yet
--          by            who did well last there
--          lasted_us     for how long
--          process       who says it
--          calls_here    how many of its calls have none
--          enough        how many are
--          cause, told   what is told of it
-- Reply    see breaker.lua
-- Codes    0 closed;  1 open
local successes = { struct.unpack(SUCCESSES_FORMAT, ARGV[SUCCESSES]) }
local state, texts = read(KEYS[BREAKER])
local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
hear(state, texts, successes, ARGV[BY])

-- The calls without an answer of all processes that have said so lately, and who they are, the newest first.
local function all_calls()
  local total, kept = tonumber(ARGV[CALLS_HERE]), { ARGV[PROCESS] .. ':' .. ARGV[CALLS_HERE] .. ':' .. whole(now) }
  for process, calls, at in string.gmatch(call('HGET', KEYS[BREAKER], 'quiet') or '', '([^:%s]+):(%d+):(%d+)') do
    if process ~= ARGV[PROCESS] and math.abs(now - tonumber(at)) < QUIET_US and #kept < QUIET_PROCESSES then
      total, kept[#kept + 1] = total + tonumber(calls), process .. ':' .. calls .. ':' .. at
    end
  end
  call('HSET', KEYS[BREAKER], 'quiet', table.concat(kept, ' '))
  return total, #kept
end

-- What is closed was asked by a probe that was answered: silence counts from then on.
local silent_us = max(SILENT_US, tonumber(ARGV[LASTED_US]))
local calls, processes = all_calls()
local is_enough = calls >= tonumber(ARGV[ENOUGH])
if state[OPENED_AT] == 0 and is_enough and now - max(state[WELL_AT], state[CLOSED_AT]) >= silent_us then
  local others = processes > 1 and string.format('; %d of %d workers together', calls, processes) or ''
  open(state, texts, {
    cause = ARGV[CAUSE], told = ARGV[TOLD] .. others, fingerprint = ARGV[FINGERPRINT], passes_at = 0, is_silent = true,
  })
  said.turned = WAS_OPENED
end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
