-- What `observe.lua` and `penalise.lua` share behind `limit.lua`; KEYS, ARGV and reply are theirs. Here: what was learnt of
-- a limit beside what is configured, two fields of the facts, packed doubles. Places of both: `layouts.py`.
local PACE_US, CUT_EVERY_US, GROW_EVERY_S = 5000000, 5000000, 0.5
-- At a 429 the guess becomes this share of the pace that was granted. Won back is as much as was cut in GROWTH_S seconds
-- at first, and faster the longer no 429 comes (by 1/e in HASTE_S), because the guess may be far off.
local CUT, GROWTH_S, HASTE_S = 0.8, 60, 20

local function read_learnt(field)
  if not field or #field ~= LEARNT_BYTES then return { LEARNT_ZEROS } end
  local learnt = { struct.unpack(LEARNT_FORMAT, field) }
  learnt[LEARNT_PLACES + 1] = nil  -- the place after the last number
  return learnt
end

local function read_seen(field)
  if not field or #field ~= SEEN_BYTES then return { SEEN_ZEROS } end
  local seen = { struct.unpack(SEEN_FORMAT, field) }
  seen[SEEN_PLACES + 1] = nil  -- the place after the last number
  return seen
end

local function pack_learnt(learnt) return struct.pack(LEARNT_FORMAT, unpack(learnt, 1, LEARNT_PLACES)) end

local function write_facts(key, was_learnt, was_seen, learnt, seen)
  local new_learnt, new_seen = pack_learnt(learnt), struct.pack(SEEN_FORMAT, unpack(seen, 1, SEEN_PLACES))
  if new_learnt ~= was_learnt or new_seen ~= was_seen then
    call('HSET', key, 'taught', new_learnt, 'told', new_seen)
    call('PEXPIRE', key, FACTS_MS)
  end
end

-- Remember every few seconds how much was granted, to know the pace when a 429 comes.
local function keep_pace(state, seen)
  if now - seen[MARK_AT] < PACE_US then return end
  seen[OLD_MARK_AT], seen[OLD_GRANTED] = seen[MARK_AT], seen[MARK_GRANTED]
  seen[OLD_TOKENS], seen[OLD_REFUSED] = seen[MARK_TOKENS], seen[MARK_REFUSED]
  seen[MARK_AT], seen[MARK_GRANTED] = now, state[GRANTED]
  seen[MARK_TOKENS], seen[MARK_REFUSED] = state[GRANTED_TOKENS], state[REFUSED]
end

local function grow_guess(learnt, seen)
  local passed_s = min(HASTE_S, (now - seen[GROWN_AT]) / 1000000)
  if learnt[GUESS + REQUESTS] == 0 or passed_s < GROW_EVERY_S then return end
  for k = 1, 2 do
    learnt[GUESS + k] = learnt[GUESS + k] + seen[GROWTH + k] * passed_s
    seen[GROWTH + k] = seen[GROWTH + k] * (1 + passed_s / HASTE_S)
  end
  seen[GROWN_AT] = now
end

-- Requests and tokens a minute that were granted and not refused in the last seconds.
local function pace(state, seen)
  local start, granted, tokens, refused = seen[OLD_MARK_AT], seen[OLD_GRANTED], seen[OLD_TOKENS], seen[OLD_REFUSED]
  if start <= 0 then
    start, granted, tokens, refused = seen[MARK_AT], seen[MARK_GRANTED], seen[MARK_TOKENS], seen[MARK_REFUSED]
  end
  local minutes = max(now - (start > 0 and start or now), PACE_US) / MINUTE_US
  local kept = state[GRANTED] - granted - (state[REFUSED] - refused)
  return kept / minutes, (state[GRANTED_TOKENS] - tokens) / minutes
end

-- Multiplicative decrease, from the pace; once for refusals that come together.
local function cut_guess(learnt, seen, state)
  if learnt[ALLOWED + REQUESTS] > 0 or learnt[ALLOWED + TOKENS] > 0 or now - seen[CUT_AT] < CUT_EVERY_US then return end
  local requests, tokens = pace(state, seen)
  if requests <= 0 then return end
  if learnt[GUESS + REQUESTS] > 0 then requests = min(requests, learnt[GUESS + REQUESTS]) end
  if learnt[GUESS + TOKENS] > 0 then tokens = min(tokens, learnt[GUESS + TOKENS]) end
  learnt[GUESS + REQUESTS], learnt[GUESS + TOKENS] = max(1, requests * CUT), tokens > 0 and max(1, tokens * CUT) or 0
  for k = 1, 2 do seen[GROWTH + k] = learnt[GUESS + k] * (1 / CUT - 1) / GROWTH_S end
  seen[GROWN_AT], seen[CUT_AT] = now, now
end

-- The period of a limit.
--
-- Most headers don't name a period, and a minute is the usual one. A longer one shows in the resets: a bucket of LIMIT that
-- is full again in RESET has LIMIT * RESET / USED as its period, whenever one looks; a window has no shorter one than its
-- RESET. One answer proves nothing unless its reset is beyond any minute: a fixed minute's first answers look like a
-- bucket of an hour. Three that agree though they have used quite different amounts are no minute: what is left of a
-- window's time only falls as its use grows.
local PROVEN_US, LEAST_LONG_US, HOUR_US, MONTH_US = 120000000, 90000000, 3600000000, 2592000000000
-- Answers that have to agree; by what share of the period, and by what factor the next one has to have used more or less.
local ENOUGH, SAME, NEAR, OTHER_USE = 3, 0.1, 0.05, 1.25
-- A longer period that nothing has shown for so long is forgotten: what a single odd answer taught fades.
local SHOWN_US = 150000000
-- What a provider allows a minute is believed for two minutes, and for a week where SURE answers in a row have told it.
local BELIEVED_US, SURE, SURE_US = 120000000, 3, 604800000000

local function is_near(us, period_us, share) return math.abs(us - period_us) <= share * period_us end

local function usual_period(us, share)
  if is_near(us, HOUR_US, share) then return HOUR_US end
  if is_near(us, DAY_US, share) then return DAY_US end
end

local function period_beyond(us)
  return us <= HOUR_US * (1 + NEAR) and HOUR_US or us <= DAY_US * (1 + NEAR) and DAY_US or MONTH_US
end

local function forget_period(seen, k)
  seen[PERIOD + k], seen[SHOWN_AT + k], seen[LONGEST_RESET + k], seen[AGREED + k] = 0, 0, 0, 0
end

-- The period on which enough answers agree, nil while they don't.
local function agreed_period(seen, k, used, bucket_us)
  if bucket_us < LEAST_LONG_US then
    seen[AGREED + k] = 0
  elseif seen[AGREED + k] == 0 or not is_near(bucket_us, seen[AGREED_PERIOD + k], SAME) then
    seen[AGREED + k], seen[AGREED_PERIOD + k], seen[AGREED_USE + k] = 1, bucket_us, used
  elseif used >= seen[AGREED_USE + k] * OTHER_USE or used * OTHER_USE <= seen[AGREED_USE + k] then
    seen[AGREED + k], seen[AGREED_PERIOD + k], seen[AGREED_USE + k] = min(ENOUGH, seen[AGREED + k] + 1), bucket_us, used
  end
  return seen[AGREED + k] >= ENOUGH and (usual_period(bucket_us, SAME) or seen[AGREED_PERIOD + k]) or nil
end

-- The period that a limit's resets show, 0: none beyond a minute.
local function period_of(seen, k, limit, left, reset_us)
  if limit > 0 and left >= 0 and reset_us >= 0 then
    local used, known = limit - left, seen[PERIOD + k]
    local bucket_us = used > 0 and limit * reset_us / used or 0
    local shown = used > 0 and agreed_period(seen, k, used, bucket_us) or nil
    if reset_us > PROVEN_US then
      seen[LONGEST_RESET + k] = max(seen[LONGEST_RESET + k], reset_us)
      shown = shown or usual_period(bucket_us, NEAR) or period_beyond(seen[LONGEST_RESET + k])
    end
    if known > 0 and not shown and is_near(bucket_us, known, SAME) then shown = known end
    if shown then seen[PERIOD + k], seen[SHOWN_AT + k] = shown, now end
  end
  if seen[PERIOD + k] > 0 and now - seen[SHOWN_AT + k] > SHOWN_US then forget_period(seen, k) end
  return seen[PERIOD + k]
end

-- What the provider allows a minute.
local function believe(learnt, seen, k, limit)
  seen[TOLD + k] = min(SURE, seen[TOLD + k] + 1)
  learnt[ALLOWED + k] = limit
  local for_us = seen[TOLD + k] >= SURE and SURE_US or BELIEVED_US
  if learnt[ALLOWED_UNTIL + k] < now + for_us / 2 then learnt[ALLOWED_UNTIL + k] = now + for_us end
end

local function forget_allowed(learnt, k)
  learnt[ALLOWED + k], learnt[ALLOWED_UNTIL + k], learnt[OTHERS + k] = 0, 0, 0
end
