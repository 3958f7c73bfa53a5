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
    call('HSET', key, 'learnt', new_learnt, 'seen', new_seen)
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
