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
-- It was sent before the breaker was closed last: that it fails now says nothing of what is.
local is_of_before = state[CLOSED_AT] > 0 and failure[LASTED_US] > 0 and now - failure[LASTED_US] < state[CLOSED_AT]
local weight = is_of_before and NOTHING or failure[WEIGHT]

-- A run has lasted so long, or is so long, that it is no accident at the share of failures before it; and hardly a call
-- that was sent since it began is still under way. What one task alone meets again and again counts once.
local function count()
  local is_repeated = who == texts.failer and weight == WITH_OTHERS
  if weight == NOTHING or is_repeated then
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

-- How much the failure counts against its task (thousandths): a whole one where failures are rare. Where they are usual, so
-- many in a row must be as unlikely for a task with which nothing is wrong.
local function counts()
  return floor(1000 * min(1, math.log(share_of(sums(state))) / math.log(share_of(0, 0))))
end

-- Did others than this task do well since then?
local function did_others_well(since)
  return (texts.well_by == who and state[OTHER_WELL_AT] or state[WELL_AT]) > since
end

local function failures_needed()
  local is_alone = weight == ALONE
  if is_alone and not did_others_well(now - GOOD_US) then return 1 end
  return unlikely_row(state, is_alone and 2 or now - state[RUN_AT] < YOUNG_US and YOUNG_IN_A_ROW or IN_A_ROW)
end

local function is_due()
  if weight == NOTHING then return false end
  local failed, well = sums(state)
  if row(state) >= failures_needed() then return true end
  return failed + well >= SHARE_CALLS and failed >= SHARE_FAILED * (failed + well)
end

-- A probe has ended: the next one need not be the later for it. One that failed at once says that those that hang are of
-- an outage of another kind.
local function end_probe()
  if failure[IS_LATE] == 1 then
    state[RAMPED] = max(0, state[RAMPED] - 1)
  else
    state[RAMPED] = 0
    if state[EVERY_US] == PROBE_US then state[OPENS_AT] = min(state[OPENS_AT], now + PROBE_US) end
  end
end

local function why()
  return {
    cause = ARGV[CAUSE], told = ARGV[TOLD], fingerprint = ARGV[FINGERPRINT], passes_at = failure[PASSES_AT],
    is_lasting = failure[WEIGHT] == ALONE, is_silent = state[OPENED_AT] > 0 and texts.silent == '1' and failure[IS_LATE] == 1,
  }
end

-- Take a retry from the budget; what it does not have yet is promised, in turn. While several tasks have failed in a row it
-- may be an outage: first tries tell that as soon, and retries would only be more calls that fail.
local function retry_at()
  state[TOKENS] = state[TOKENS] - 1
  local soonest = state[RUN] > 1 and now + PROBE_US or 0
  if state[TOKENS] >= 0 then return soonest end
  local _, well = sums(state)
  local a_second = RETRY_FLOOR + RETRY_SHARE * well / WINDOW_S
  state[TOKENS] = max(state[TOKENS], -LONGEST_DEBT_S * a_second)
  return max(soonest, now - state[TOKENS] / a_second * 1000000)
end

local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
hear(state, texts, successes, ARGV[BY])
count()
tally_up(texts, failure[SORT], 1)
said.counts = did_others_well(now - failure[SINCE_US]) and counts() or 0
if state[OPENED_AT] > 0 then
  if failure[IS_PROBE] == 1 then end_probe() end
  if failure[IS_PROBE] == 1 and failure[WEIGHT] ~= NOTHING then open(state, texts, why()) end
elseif is_due() then
  open(state, texts, why())
  said.turned = WAS_OPENED
end
if state[OPENED_AT] == 0 then said.retry_at = retry_at() end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
