-- Correct a limit by what an answer's headers said of the provider's own count: others may share the key, and what is
-- configured may be wrong. It only ever takes room away, or gives back what it took before.
--
-- A reading is as of the moment when the call was admitted, about the time of its grant; what was granted since then is
-- added. A provider with a small bucket must not come closer to empty than our burst: the clock goes forward by what is
-- missing. One that counts in a window, or whose bucket holds half a minute or more: what others have used of it is
-- taken off our window until the provider says that it is over.
--
-- A limit of more than a minute (`learning.lua`) never lowers what is configured a minute. Only when little of it is left
-- do calls go at the pace that this little gives.
--
-- KEYS     state, facts   see limit.lua
-- ARGV     heard          packed: what the headers said, and of which grant; places: `layouts.py`
--          terms          packed
-- Reply    packed: code, us by which a clock was moved at most, now_us; then by rate what the provider allows a minute,
--          where that is surely less than what is configured or set, else 0
-- Codes    1 taken note of
-- Where others use the key they are left room for their next calls: this share of the limit at most.
local ROOM_SHARE = 0.05
-- By what share of the way what others use comes back down, at each reading.
local DECAY = 0.25
-- This share of a longer period's limit is little, if it is also less than what goes in this share of a minute.
local LITTLE, LITTLE_OF_MINUTE = 0.02, 0.1
-- A pace holds no longer than this without being told again, and lets one call go in that time in any case: thirty seconds
-- as one or two answers say it, ten minutes where SURE in a row do.
local FIRST_PACED_US, PACED_US = 30000000, 600000000

local heard = { struct.unpack(HEARD_FORMAT, ARGV[HEARD]) }
local set, was_learnt, was_seen, beside = unpack(call('HMGET', KEYS[FACTS], 'set', 'taught', 'told', 'beside'))
local state = read_state(KEYS[STATE], beside)
local learnt, seen = read_learnt(was_learnt), read_seen(was_seen)
local before, wanted = read_terms(ARGV[TERMS], set, was_learnt), read_terms(ARGV[TERMS], set, nil)

-- What the provider allows a minute; returns the period when it is a longer one, else 0.
local function hear_limit(k, limit, left, reset_us, period_us)
  if limit > 0 and limit ~= seen[LIMIT + k] then
    seen[LIMIT + k], seen[MOST_LEFT + k], seen[TOLD + k] = limit, 0, 0
    forget_period(seen, k)
  end
  if left > seen[MOST_LEFT + k] then seen[MOST_LEFT + k] = left end
  local long_us = period_us > 0 and 0 or period_of(seen, k, limit, left, reset_us)
  if long_us > 0 then
    forget_allowed(learnt, k)
  elseif limit > 0 then
    believe(learnt, seen, k, limit)
  end
  return long_us
end

-- What was granted since the reading, of rate k.
local function granted_since(k)
  if k == REQUESTS then return max(0, state[GRANTED] - heard[GRANTED]) end
  local since = state[GRANTED_TOKENS] - heard[GRANTED_TOKENS]
  if k > TOKENS and state[MEAN + TOKENS] > 0 then since = since * state[MEAN + k] / state[MEAN + TOKENS] end
  return max(0, since)
end

-- What others have used of the provider's window.
local function hear_others(k, limit, left, reset_us, refill, terms)
  local used = max(seen[MOST_LEFT + k] - left, reset_us >= 0 and min(limit - left, reset_us * refill) or 0)
  local others, known = max(0, used - state[WINDOW + k]), learnt[OTHERS + k]
  if others >= 1 then others = others + min(burst_of(terms, k) * terms[k] / MINUTE_US, limit * ROOM_SHARE) end
  if others < known then others = known + (others - known) * DECAY end
  learnt[OTHERS + k] = others >= 1 and others or 0
  if others >= 1 then
    local over_us = reset_us >= 0 and min(reset_us, terms[WINDOW_US]) or terms[WINDOW_US]
    learnt[OTHERS_UNTIL] = max(learnt[OTHERS_UNTIL], heard[GRANTED_AT] + over_us)
  end
end

-- Where the clock of rate k has to stand, so that the provider's bucket keeps our burst.
local function clock_of(k, left, reset_us, refill, terms)
  local us, burst = MINUTE_US / terms[k], burst_of(terms, k)
  local kept = reset_us >= 0 and max(0, min(burst / us, left + reset_us * refill - burst / us)) or 0
  local clock = ceil(heard[GRANTED_AT] + burst + (kept - left + granted_since(k)) * us)
  return min(clock, now + burst + MINUTE_US)
end

-- Note a limit of a longer period in the place `slot`; returns the calls a minute that it leaves, nil where that is no
-- matter, and for how long.
local function hear_long(slot, k, limit, left, reset_us, period_us)
  if limit > 0 then seen[LONG_LIMIT + slot] = limit end
  limit = seen[LONG_LIMIT + slot]
  if limit <= 0 then return end
  seen[LONG_PERIOD + slot], seen[LONG_AT + slot] = period_us, now
  seen[LONG_FULL_AT + slot] = reset_us >= 0 and heard[GRANTED_AT] + reset_us or 0
  seen[LONG_LEFT + slot] = left
  if left < 0 then return end
  local used, mean = limit - left, k == REQUESTS and 1 or max(1, state[MEAN + k])
  left = max(0, left - granted_since(k))
  seen[LONG_LEFT + slot] = left
  local little = limit * LITTLE
  if wanted[k] > 0 then little = min(little, wanted[k] * LITTLE_OF_MINUTE) end
  if left > max(little, mean) then return end
  local rest_us = max(1, reset_us >= 0 and reset_us or period_us)
  local pace = left / rest_us
  if used > 0 and is_near(limit * rest_us / used, period_us, SAME) then  -- a bucket: more comes all the time
    pace = left / PACED_US + limit / period_us
  end
  rest_us = min(rest_us, seen[TOLD_PACED] >= SURE and PACED_US or FIRST_PACED_US)
  return max(pace / mean, 1 / rest_us) * MINUTE_US, rest_us
end

-- Hear all limits of longer periods, also those whose resets showed them to be such: of each rate k in `long`. Every reading
-- decides anew whether little is left.
local function hear_longs(long)
  local pace, until_us, is_told = nil, 0, false
  local function hear(slot, k, at, period_us)
    local limit, left = heard[LIMIT + at], heard[LEFT + at]
    is_told = is_told or limit > 0 or left >= 0
    if period_us <= 0 or limit <= 0 and left < 0 then return end
    local calls, rest_us = hear_long(slot, k, limit, left, heard[RESET_US + at], period_us)
    if calls and (not pace or calls < pace) then pace = calls end
    if calls then until_us = max(until_us, now + rest_us) end
  end
  for k = 1, 4 do hear(long[k] <= 2 * HOUR_US and k or k + 4, k, k, long[k]) end
  for slot = 1, 8 do hear(slot, slot > 4 and slot - 4 or slot, slot + 4, heard[PERIOD_US + slot + 4]) end
  if not is_told then return end
  seen[TOLD_PACED] = pace and min(SURE, seen[TOLD_PACED] + 1) or 0
  learnt[PACED], learnt[PACED_UNTIL] = pace or 0, until_us
end

-- Clocks that a lower rate has moved far ahead come back with the higher one; the debt of a hold stays.
local function rescale(terms)
  local moved = false
  for k = 1, 4 do
    local clock, from, to = state[CLOCK + k], before[k], terms[k]
    if from > 0 and clock > now and (to == 0 or to > from * 1.5) then
      local scaled = to > 0 and now + ceil((clock - now) * from / to) or now
      if state[HELD_UNTIL] > now then scaled = max(scaled, min(clock, state[HELD_UNTIL] + burst_of(terms, k))) end
      moved, state[CLOCK + k] = true, scaled
    end
  end
  return moved
end

local long = {}
for k = 1, 4 do
  long[k] = hear_limit(k, heard[LIMIT + k], heard[LEFT + k], heard[RESET_US + k], heard[PERIOD_US + k])
end
hear_longs(long)
grow_guess(learnt, seen)
keep_pace(state, seen)

local terms, moved = read_terms(ARGV[TERMS], set, pack_learnt(learnt)), 0
local is_rescaled = rescale(terms)
for k = 1, 4 do
  local limit, left, reset_us = heard[LIMIT + k], heard[LEFT + k], heard[RESET_US + k]
  if left >= 0 and terms[k] > 0 and long[k] == 0 then
    if limit <= 0 then limit = terms[k] end
    local refill = limit / MINUTE_US
    if terms[WINDOW_US] > 0 and seen[MOST_LEFT + k] >= limit / 2 then
      hear_others(k, limit, left, reset_us, refill, terms)
    else
      local was, clock = state[CLOCK + k], clock_of(k, left, reset_us, refill, terms)
      if clock > was then moved, state[CLOCK + k] = max(moved, clock - max(was, now)), clock end
    end
  end
end
if learnt[OTHERS_UNTIL] <= now then
  for k = 1, 4 do learnt[OTHERS + k] = 0 end
  learnt[OTHERS_UNTIL] = 0
end

if moved > 0 or is_rescaled then write_state(KEYS[STATE], KEYS[FACTS], state) end
write_facts(KEYS[FACTS], was_learnt, was_seen, learnt, seen)

local lowered = {}
for k = 1, 4 do
  local is_sure = learnt[ALLOWED + k] > 0 and (seen[TOLD + k] >= SURE or heard[PERIOD_US + k] > 0)
  lowered[k] = is_sure and learnt[ALLOWED + k] < wanted[k] and ceil(learnt[ALLOWED + k]) or 0
end
return reply(1, ceil(moved), now, unpack(lowered))
