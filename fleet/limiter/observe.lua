-- Correct a limit by what an answer's headers said of the provider's own count: others may share the key, and what is
-- configured may be wrong. It only ever takes room away, or gives back what it took before.
--
-- A reading is as of the moment when the call was admitted, about the time of its grant; what was granted since then is
-- added. A provider with a small bucket must not come closer to empty than our burst: the clock goes forward by what is
-- missing. One that counts in a window, or whose bucket holds half a minute or more: what others have used of it is
-- taken off our window until the provider says that it is over.
--
-- KEYS     state, facts   see limit.lua
-- ARGV     heard          packed: what the headers said, and of which grant; places: `layouts.py`
--          terms          packed
-- Reply    packed: code, us by which a clock was moved at most, now_us
-- Codes    1 taken note of
-- A period longer than a minute shows in its reset, once so much of it is used: then the rate is what it gets back.
local LONG_PERIOD_US, ENOUGH = 90000000, 10
-- Where others use the key they are left room for their next calls: this share of the limit at most.
local ROOM_SHARE = 0.05
-- By what share of the way what others use comes back down, at each reading.
local DECAY = 0.25

local heard = { struct.unpack(HEARD_FORMAT, ARGV[HEARD]) }
local set, was_learnt, was_seen = unpack(call('HMGET', KEYS[FACTS], 'set', 'learnt', 'seen'))
local state = read_state(KEYS[STATE])
local learnt, seen = read_learnt(was_learnt), read_seen(was_seen)

-- What the provider allows.
local function hear_limit(k, limit, left, reset_us)
  if limit > 0 then
    if limit ~= seen[LIMIT + k] then
      seen[LIMIT + k], seen[MOST_LEFT + k], learnt[ALLOWED + k] = limit, 0, limit
    end
    if reset_us > LONG_PERIOD_US and left >= 0 and limit - left >= ENOUGH then
      learnt[ALLOWED + k] = (limit - left) / reset_us * MINUTE_US
    end
  end
  if left > seen[MOST_LEFT + k] then seen[MOST_LEFT + k] = left end
end

-- What others have used of the provider's window.
local function hear_others(k, limit, left, reset_us, refill, terms)
  local used = max(seen[MOST_LEFT + k] - left, reset_us >= 0 and min(limit - left, reset_us * refill) or 0)
  local others, before = max(0, used - state[WINDOW + k]), learnt[OTHERS + k]
  if others >= 1 then others = others + min(burst_of(terms, k) * terms[k] / MINUTE_US, limit * ROOM_SHARE) end
  if others < before then others = before + (others - before) * DECAY end
  learnt[OTHERS + k] = others >= 1 and others or 0
  if others >= 1 then
    local over_us = reset_us >= 0 and min(reset_us, terms[WINDOW_US]) or terms[WINDOW_US]
    learnt[OTHERS_UNTIL] = max(learnt[OTHERS_UNTIL], heard[GRANTED_AT] + over_us)
  end
end

-- Where the clock of rate k has to stand, so that the provider's bucket keeps our burst.
local function clock_of(k, left, reset_us, refill, terms)
  local us, burst = MINUTE_US / terms[k], burst_of(terms, k)
  local since = state[GRANTED] - heard[GRANTED]
  if k > REQUESTS then
    since = state[GRANTED_TOKENS] - heard[GRANTED_TOKENS]
    if k > TOKENS and state[MEAN + TOKENS] > 0 then since = since * state[MEAN + k] / state[MEAN + TOKENS] end
  end
  local kept = reset_us >= 0 and max(0, min(burst / us, left + reset_us * refill - burst / us)) or 0
  local clock = ceil(heard[GRANTED_AT] + burst + (kept - left + max(0, since)) * us)
  return min(clock, now + burst + MINUTE_US)
end

for k = 1, 4 do hear_limit(k, heard[LIMIT + k], heard[LEFT + k], heard[RESET_US + k]) end
grow_guess(learnt, seen)
keep_pace(state, seen)

local terms, moved = read_terms(ARGV[TERMS], set, pack_learnt(learnt)), 0
for k = 1, 4 do
  local limit, left, reset_us = heard[LIMIT + k], heard[LEFT + k], heard[RESET_US + k]
  if left >= 0 and terms[k] > 0 then
    if limit <= 0 then limit = terms[k] end
    local refill = max(limit, learnt[ALLOWED + k]) / MINUTE_US
    if terms[WINDOW_US] > 0 and seen[MOST_LEFT + k] >= limit / 2 then
      hear_others(k, limit, left, reset_us, refill, terms)
    else
      local before, clock = state[CLOCK + k], clock_of(k, left, reset_us, refill, terms)
      if clock > before then moved, state[CLOCK + k] = max(moved, clock - max(before, now)), clock end
    end
  end
end
if learnt[OTHERS_UNTIL] <= now then
  for k = 1, 4 do learnt[OTHERS + k] = 0 end
  learnt[OTHERS_UNTIL] = 0
end

if moved > 0 then write_state(KEYS[STATE], state) end
write_facts(KEYS[FACTS], was_learnt, was_seen, learnt, seen)
return reply(1, ceil(moved), now)
