-- What all scripts of a breaker begin with; KEYS, ARGV and what they do are each script's own. Places of `state`, `successes`
-- and `failure`: `layouts.py`; numbers in capitals that are not set here: `rules.py`.
--
-- KEYS     breaker   hash, TTL a day beyond its next probe, of one provider/model/key:
--            state         packed
--            cause, told   why it is open
--            fingerprint   of the settings and the key that it was opened with
--            failer        who failed last
--            well_by       who did well last
--            tally         packed: calls of the last minutes by what became of them, for people
--            silent        '1': it was opened because nothing was answered; else ''
-- ARGV     of its own
-- Reply    of all: {code, turned, opens_at, every_us, go_at, retry_at, counts, lift_at, failed_at, late, row, now,
--          cause, told}, see `layouts.py: BreakerReply`
-- A clock that is set back by less than this is waited for.
local STEP_US = 1000000
local max, min, floor, call = math.max, math.min, math.floor, redis.call
local seconds, microseconds = unpack(call('TIME'))
local now = seconds * 1000000 + microseconds

-- Cut to an integer; `tostring` would round microseconds to 14 digits.
local function whole(number) return string.format('%.0f', number) end

-- A clock that was set back, or a new master whose clock is behind: all that is known of times moves back with it.
local function follow_clock(state)
  local back = state[WRITTEN_AT] - now
  if back < STEP_US then return end
  local function moved(at) return at > 0 and max(1, at - back) or at end
  state[OPENED_AT], state[OPENS_AT] = moved(state[OPENED_AT]), moved(state[OPENS_AT])
  state[CLOSED_AT], state[LIFT_AT] = moved(state[CLOSED_AT]), moved(state[LIFT_AT])
  state[RUN_AT], state[FAILED_AT] = moved(state[RUN_AT]), moved(state[FAILED_AT])
  state[WELL_AT], state[OTHER_WELL_AT] = moved(state[WELL_AT]), moved(state[OTHER_WELL_AT])
  state[TOKENS_AT], state[BUCKET] = moved(state[TOKENS_AT]), floor(now / BUCKET_US)
end

-- Empty the buckets that have left the window.
local function roll(state)
  local bucket = floor(now / BUCKET_US)
  for k = 0, min(bucket - state[BUCKET], BUCKETS) - 1 do
    local place = (bucket - k) % BUCKETS + 1
    state[FAILED + place], state[WELL + place], state[LATE + place] = 0, 0, 0
  end
  state[BUCKET] = bucket
end

local function bucket_of(state) return state[BUCKET] % BUCKETS + 1 end

local function sums(state)
  local failed, well, late = 0, 0, 0
  for k = 1, BUCKETS do
    failed, well, late = failed + state[FAILED + k], well + state[WELL + k], late + state[LATE + k]
  end
  return failed, well, late
end

-- What is not used of the budget fades; what is promised already is paid off as time goes by.
local function refill(state)
  local gone_s = max(0, now - state[TOKENS_AT]) / 1000000
  local free = RETRY_FLOOR * BUDGET_S
  if state[TOKENS] < 0 then
    state[TOKENS] = min(free, state[TOKENS] + RETRY_FLOOR * gone_s)
  else
    state[TOKENS] = free + (state[TOKENS] - free) * math.exp(-gone_s / BUDGET_S)
  end
  state[TOKENS_AT] = now
end

-- Failures in a row, if hardly a call that was sent since the first of them is still under way; else 0.
local function row(state)
  local sent = state[RUN_TO] - state[RUN_FROM] + 1
  return state[RUN] + state[RUN_BESIDES] >= RUN_SHARE * sent and state[RUN] or 0
end

-- The share of calls that fail, as it is taken before much is known.
local function share_of(failed, well) return (failed + PRIOR_FAILED) / (failed + well + PRIOR_CALLS) end

-- How many failures in a row, `least` or more, are no accident at the share of failures before them.
local function unlikely_row(state, least)
  local failed, well = sums(state)
  local share = share_of(max(0, failed - state[RUN]), well)
  return min(MOST_IN_A_ROW, max(least, math.ceil(math.log(UNLIKELY) / math.log(share))))
end

-- Count calls of this minute by what became of them.
local function tally_up(texts, sort, calls)
  local tally = { TALLY_ZEROS }
  if #texts.tally == TALLY_BYTES then tally = { struct.unpack(TALLY_FORMAT, texts.tally) } end
  local minute = floor(now / 60000000)
  local slot = minute % CALL_MINUTES
  local first = slot * SORTS
  if tally[MINUTE + slot] ~= minute then
    tally[MINUTE + slot] = minute
    for other = first, first + SORTS - 1 do tally[COUNTED + other] = 0 end
  end
  tally[COUNTED + first + sort] = tally[COUNTED + first + sort] + calls
  texts.tally = struct.pack(TALLY_FORMAT, unpack(tally, 1, TALLY_PLACES))
end

-- The state and the texts of a breaker. Of a new one nobody knows whether gates are left of an older one: they are opened.
local function read(key)
  local packed, cause, told, fingerprint, failer, well_by, tally, silent =
    unpack(call('HMGET', key, 'state', 'cause', 'told', 'fingerprint', 'failer', 'well_by', 'tally', 'silent'))
  local state = { STATE_ZEROS }
  if packed and #packed == STATE_BYTES then
    state = { struct.unpack(STATE_FORMAT, packed) }
    state[STATE_PLACES + 1] = nil  -- the place after the last number
    follow_clock(state)
  else
    state[TOKENS], state[TOKENS_AT], state[LIFT_AT] = RETRY_FLOOR * BUDGET_S, now, 1
  end
  roll(state)
  refill(state)
  return state, {
    cause = cause or '', told = told or '', fingerprint = fingerprint or '', failer = failer or '', well_by = well_by or '',
    tally = tally or '', silent = silent or '',
  }
end

local function write(key, state, texts)
  state[WRITTEN_AT] = now
  local packed = struct.pack(STATE_FORMAT, unpack(state, 1, STATE_PLACES))
  call('HSET', key, 'state', packed, 'cause', texts.cause, 'told', texts.told, 'fingerprint', texts.fingerprint,
    'failer', texts.failer, 'well_by', texts.well_by, 'tally', texts.tally, 'silent', texts.silent)
  call('PEXPIRE', key, whole(max(0, state[OPENS_AT] - now) / 1000 + KEPT_MS))
end

-- Begin anew: what failed before says nothing of what is to come. Whoever hears it opens the pools' gates.
local function close(state)
  state[OPENED_AT], state[OPENS_AT], state[TRIES], state[RUN] = 0, 0, 0, 0
  state[CLOSED_AT], state[RAMPED], state[LIFT_AT] = now, 0, now - LIFT_AGAIN_US
  for k = 1, BUCKETS do state[FAILED + k], state[WELL + k], state[LATE + k] = 0, 0, 0 end
end

-- Open it, or leave it open after a probe that failed: the next one goes later, and not before the provider said.
local function open(state, texts, why)
  if texts.cause ~= why.cause then state[TRIES] = 0 end
  state[TRIES] = state[TRIES] + 1
  local longer_us = min(LONGEST_LASTING_US, FIRST_LASTING_US * 2 ^ min(state[TRIES] - 1, 10))
  local was_quick = state[OPENED_AT] > 0 and state[EVERY_US] == PROBE_US
  state[EVERY_US] = why.is_lasting and longer_us or PROBE_US
  local next_at = was_quick and not why.is_lasting and state[OPENS_AT] or now + state[EVERY_US]
  state[OPENS_AT] = max(next_at, min(why.passes_at, now + FAR_US))
  if state[OPENED_AT] == 0 then state[OPENED_AT], state[RAMPED] = now, 0 end
  state[LIFT_AT], texts.cause, texts.told, texts.fingerprint = 0, why.cause, why.told, why.fingerprint
  texts.silent = why.is_silent and '1' or ''
end

-- Other settings or another key than it was opened with: it begins anew. True when it did.
local function is_of_others(state, texts, fingerprint)
  if state[OPENED_AT] == 0 or texts.fingerprint == fingerprint then return false end
  close(state)
  return true
end

-- What one process says of its successes. A run of failures ends when a call that was sent after its first one does well.
local function hear(state, texts, successes, by)
  if successes[CALLS] <= 0 then return end
  local place, at = bucket_of(state), now - successes[AGE_US]
  local other_at = successes[OTHER_AGE_US] >= 0 and now - successes[OTHER_AGE_US] or 0
  state[WELL + place] = state[WELL + place] + successes[CALLS]
  tally_up(texts, WELL_SORT, successes[CALLS])
  state[TOKENS] = state[TOKENS] + successes[CALLS] * RETRY_SHARE
  if by == texts.well_by then
    state[WELL_AT], state[OTHER_WELL_AT] = max(state[WELL_AT], at), max(state[OTHER_WELL_AT], other_at)
  elseif at > state[WELL_AT] then
    state[OTHER_WELL_AT] = max(state[WELL_AT], other_at)
    state[WELL_AT], texts.well_by = at, by
  else
    state[OTHER_WELL_AT] = max(state[OTHER_WELL_AT], at)
  end
  local is_between = at > state[RUN_AT]
  if successes[PLACE] > 0 and state[RUN_FROM] > 0 then is_between = successes[PLACE] > state[RUN_FROM] end
  if is_between then state[RUN] = 0 end
end

-- Say of a closed breaker, once in a while, that the pools' gates are to be opened, until somebody says that they are.
local function lift_at(state)
  if state[OPENED_AT] > 0 or state[LIFT_AT] == 0 or now - state[LIFT_AT] < LIFT_AGAIN_US then return 0 end
  state[LIFT_AT] = now
  return now
end

local function reply(state, texts, said)
  local _, _, late = sums(state)
  return {
    said.code or (state[OPENED_AT] > 0 and 1 or 0), said.turned or 0, state[OPENS_AT], state[EVERY_US], said.go_at or 0,
    said.retry_at or 0, said.counts or 0, lift_at(state), state[FAILED_AT], late, row(state), now, texts.cause, texts.told,
  }
end
