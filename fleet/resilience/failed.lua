-- A call failed: count it, open the breaker when that is due, and say when its task may try again.
--
-- KEYS     breaker       see breaker.lua
-- ARGV     fingerprint   of the caller's settings and key
--          successes     packed: what the process has not said yet
--          by            who did well last there
--          failure       packed
--          who           whose call failed
--          cause, told   why
-- Reply    see breaker.lua; `retry_at` and `counts` are said here only
-- Codes    0 closed;  1 open
local successes = { struct.unpack(SUCCESSES_FORMAT, ARGV[SUCCESSES]) }
local failure = { struct.unpack(FAILURE_FORMAT, ARGV[FAILURE]) }
local state, texts = read(KEYS[BREAKER])
local who = ARGV[WHO]

-- A run has lasted so long, or is so long, that it is no accident at the share of failures before it; and hardly a call
-- that was sent since it began is still under way. What one task alone meets again and again counts once.
local function count()
  local is_repeated = who == texts.failer and failure[WEIGHT] == WITH_OTHERS
  if failure[WEIGHT] == NOTHING or is_repeated then
    if state[RUN] > 0 then
      state[RUN_BESIDES], state[RUN_TO] = state[RUN_BESIDES] + 1, max(state[RUN_TO], failure[PLACE])
    end
    return
  end
  local place = bucket_of(state)
  state[FAILED + place], state[LATE + place] = state[FAILED + place] + 1, state[LATE + place] + failure[IS_LATE]
  state[FAILED_AT], texts.failer = now, who
  if state[RUN] == 0 then
    state[RUN_AT], state[RUN_FROM], state[RUN_TO], state[RUN_BESIDES] = now, failure[PLACE], failure[PLACE], 0
  end
  state[RUN] = state[RUN] + 1
  if failure[PLACE] > 0 and (state[RUN_FROM] == 0 or failure[PLACE] < state[RUN_FROM]) then
    state[RUN_FROM] = failure[PLACE]
  end
  state[RUN_TO] = max(state[RUN_TO], failure[PLACE])
end

-- The share of calls that fail, as it is taken before much is known.
local function share_of(failed, well) return (failed + PRIOR_FAILED) / (failed + well + PRIOR_CALLS) end

-- How much the failure counts against its task (thousandths): a whole one where failures are rare. Where they are usual, so
-- many in a row must be as unlikely for a task with which nothing is wrong.
local function counts()
  return floor(1000 * min(1, math.log(share_of(sums(state))) / math.log(share_of(0, 0))))
end

-- Did others than this task do well since then?
local function did_others_well(since)
  return (texts.well_by == who and state[OTHER_WELL_AT] or state[WELL_AT]) > since
end

local function failures_needed(failed, well)
  local is_alone = failure[WEIGHT] == ALONE
  if is_alone and not did_others_well(now - GOOD_US) then return 1 end
  local share = share_of(max(0, failed - state[RUN]), well)
  local least = is_alone and 2 or now - state[RUN_AT] < YOUNG_US and YOUNG_IN_A_ROW or IN_A_ROW
  return min(MOST_IN_A_ROW, max(least, math.ceil(math.log(UNLIKELY) / math.log(share))))
end

local function is_due()
  if failure[WEIGHT] == NOTHING then return false end
  local failed, well = sums(state)
  local sent = state[RUN_TO] - state[RUN_FROM] + 1
  if state[RUN] >= failures_needed(failed, well) and state[RUN] + state[RUN_BESIDES] >= RUN_SHARE * sent then return true end
  return failed + well >= SHARE_CALLS and failed >= SHARE_FAILED * (failed + well)
end

-- Open it, or leave it open after a probe that failed: the next one goes later, and not before the provider said.
local function open()
  local is_lasting = failure[WEIGHT] == ALONE
  if texts.cause ~= ARGV[CAUSE] then state[TRIES] = 0 end
  state[TRIES] = state[TRIES] + 1
  local longer_us = min(LONGEST_LASTING_US, FIRST_LASTING_US * 2 ^ min(state[TRIES] - 1, 10))
  local was_quick = state[OPENED_AT] > 0 and state[EVERY_US] == PROBE_US
  state[EVERY_US] = is_lasting and longer_us or PROBE_US
  local next_at = was_quick and not is_lasting and state[OPENS_AT] or now + state[EVERY_US]
  state[OPENS_AT] = max(next_at, min(failure[PASSES_AT], now + FAR_US))
  if state[OPENED_AT] == 0 then state[OPENED_AT] = now end
  state[LIFT_AT], texts.cause, texts.told, texts.fingerprint = 0, ARGV[CAUSE], ARGV[TOLD], ARGV[FINGERPRINT]
end

-- Take a retry from the budget; what it does not have yet is promised, in turn.
local function retry_at()
  state[TOKENS] = state[TOKENS] - 1
  if state[TOKENS] >= 0 then return 0 end
  local _, well = sums(state)
  local a_second = RETRY_FLOOR + RETRY_SHARE * well / WINDOW_S
  state[TOKENS] = max(state[TOKENS], -LONGEST_DEBT_S * a_second)
  return now - state[TOKENS] / a_second * 1000000
end

local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
hear(state, texts, successes, ARGV[BY])
count()
tally_up(texts, failure[SORT], 1)
said.counts = did_others_well(now - failure[SINCE_US]) and counts() or 0
if state[OPENED_AT] > 0 then
  if failure[IS_PROBE] == 1 and failure[WEIGHT] ~= NOTHING then open() end
elseif is_due() then
  open()
  said.turned = WAS_OPENED
end
if state[OPENED_AT] == 0 then said.retry_at = retry_at() end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
