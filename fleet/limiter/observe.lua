-- Correct a limit by what an answer's headers said of the provider's own count: others may share the key, and what is
-- configured may be wrong. It only ever takes room away, or gives back what it took before.
--
-- A reading is as of the moment when the call was admitted, about the time of its grant; what was granted since then is
-- added. A provider with a small bucket must not come closer to empty than our burst: the clock goes forward by what is
-- missing. One that counts in a window, or whose bucket holds half a minute or more: what others have used of it is
-- taken off our window until the provider says that it is over.
--
-- KEYS     1 state, 2 facts (see limit.lua)
-- ARGV     1 fifteen packed doubles: time of the grant (us), requests and tokens granted until then; limit, remaining,
--          time until all is there again (us) of requests, tokens, input tokens, output tokens; -1: not said
--          2 packed terms
-- Reply    packed: code, us by which a clock was moved at most, now_us
-- Codes    1 taken note of
local heard = {struct.unpack('<ddddddddddddddd', ARGV[1])}
local facts = call('HMGET', KEYS[2], 'set', 'learnt', 'seen')
local state, mark = read_state(KEYS[1]), heard[1]
local learnt, seen = read_learnt(facts[2]), read_seen(facts[3])

-- What the provider allows. A period longer than a minute shows in its reset: then the rate is what it gets back.
local LONG_PERIOD_US, ENOUGH = 90000000, 10
for k = 1, 4 do
  local limit, left, reset = heard[3 * k + 1], heard[3 * k + 2], heard[3 * k + 3]
  if limit > 0 then
    if limit ~= seen[k] then seen[k], seen[4 + k], learnt[k] = limit, 0, limit end
    if reset > LONG_PERIOD_US and left >= 0 and limit - left >= ENOUGH then
      learnt[k] = (limit - left) / reset * MINUTE_US
    end
  end
  if left > seen[4 + k] then seen[4 + k] = left end
end
grow_guess(learnt, seen)
keep_pace(state, seen)

-- What others have used.
local terms = read_terms(ARGV[2], facts[1], pack_learnt(learnt))
local requests, tokens, moved = state[22] - heard[2], state[23] - heard[3], 0
for k = 1, 4 do
  local limit, left, reset = heard[3 * k + 1], heard[3 * k + 2], heard[3 * k + 3]
  if left >= 0 and terms[k] > 0 then
    local us, burst = MINUTE_US / terms[k], burst_of(terms, k)
    if limit <= 0 then limit = terms[k] end
    local refill = max(limit, learnt[k]) / MINUTE_US
    if terms[9] > 0 and seen[4 + k] >= limit / 2 then
      local used = max(seen[4 + k] - left, reset >= 0 and min(limit - left, reset * refill) or 0)
      local others = max(0, used - state[23 + k])
      if others >= 1 then others = others + min(burst / us, limit / 20) end  -- room for their next calls
      if others < learnt[6 + k] then others = learnt[6 + k] + (others - learnt[6 + k]) / 4 end
      learnt[6 + k] = others >= 1 and others or 0
      if others >= 1 then learnt[11] = max(learnt[11], mark + (reset >= 0 and min(reset, terms[9]) or terms[9])) end
    else
      local kept = reset >= 0 and max(0, min(burst / us, left + reset * refill - burst / us)) or 0
      local since = k == 1 and requests or tokens * (k > 2 and state[7] > 0 and state[5 + k] / state[7] or 1)
      local clock = ceil(mark + burst + (kept - left + max(0, since)) * us)
      clock = min(clock, now + burst + MINUTE_US)
      if clock > state[k] then moved, state[k] = max(moved, clock - max(state[k], now)), clock end
    end
  end
end
if learnt[11] <= now then learnt[7], learnt[8], learnt[9], learnt[10], learnt[11] = 0, 0, 0, 0, 0 end

if moved > 0 then write_state(KEYS[1], state) end
write_facts(KEYS[2], facts, learnt, seen)
return reply(1, ceil(moved), now)
