-- What `observe.lua` and `penalise.lua` share behind `limit.lua`; KEYS, ARGV and reply are theirs. Here: what was learnt of a
-- limit beside what is configured. Two fields of the facts, packed doubles.
--   learnt    1-4 what the provider says it allows a minute (requests, tokens, input, output; 0: not said), 5-6 guess at
--             requests and tokens a minute where nothing is configured or said, 7-10 what others have used of the window,
--             11 until then (us)
--   seen      1-4 limits as told, 5-8 most that was ever left of them, 9-10 growth of the guesses per second, 11 when
--             they last grew, 12 last cut (us), 13-16 and 17-20 two marks: time, granted requests, tokens, refusals
local PACE_US, CUT_EVERY_US = 5000000, 5000000
-- At a 429 the guess becomes this share of the pace that was granted. Won back is as much as was cut in GROWTH_S seconds
-- at first, and faster the longer no 429 comes (by 1/e in HASTE_S), because the guess may be far off.
local CUT, GROWTH_S, HASTE_S = 0.8, 60, 20

local function unpacked(packed, count)
  if not packed or #packed ~= 8 * count then packed = string.rep('\0', 8 * count) end
  local numbers = {struct.unpack('<' .. string.rep('d', count), packed)}
  numbers[count + 1] = nil  -- the place after the last number
  return numbers
end

local function packed(numbers) return struct.pack('<' .. string.rep('d', #numbers), unpack(numbers)) end
local function read_learnt(field) return unpacked(field, 11) end
local function read_seen(field) return unpacked(field, 20) end
local function pack_learnt(learnt) return packed(learnt) end

local function write_facts(key, facts, learnt, seen)
  local new = {packed(learnt), packed(seen)}
  if new[1] ~= facts[2] or new[2] ~= facts[3] then
    call('HSET', key, 'learnt', new[1], 'seen', new[2])
    call('PEXPIRE', key, FACTS_MS)
  end
end

-- Remember every few seconds how much was granted, to know the pace when a 429 comes.
local function keep_pace(state, seen)
  if now - seen[17] < PACE_US then return end
  for k = 13, 16 do seen[k] = seen[4 + k] end
  seen[17], seen[18], seen[19], seen[20] = now, state[22], state[23], state[37]
end

local function grow_guess(learnt, seen)
  local seconds = min(HASTE_S, (now - seen[11]) / 1000000)
  if learnt[5] == 0 or seconds < 0.5 then return end
  learnt[5], learnt[6], seen[11] = learnt[5] + seen[9] * seconds, learnt[6] + seen[10] * seconds, now
  seen[9], seen[10] = seen[9] * (1 + seconds / HASTE_S), seen[10] * (1 + seconds / HASTE_S)
end

-- Multiplicative decrease, from what was granted and not refused in the last seconds; once for refusals that come together.
local function cut_guess(learnt, seen, state)
  if learnt[1] > 0 or learnt[2] > 0 or now - seen[12] < CUT_EVERY_US then return end
  local from = seen[13] > 0 and 13 or 17
  local start = seen[from] > 0 and seen[from] or now
  local minutes = max(now - start, PACE_US) / MINUTE_US
  local requests = (state[22] - seen[from + 1] - (state[37] - seen[from + 3])) / minutes
  local tokens = (state[23] - seen[from + 2]) / minutes
  if requests <= 0 then return end
  if learnt[5] > 0 then requests = min(requests, learnt[5]) end
  if learnt[6] > 0 then tokens = min(tokens, learnt[6]) end
  learnt[5], learnt[6] = max(1, requests * CUT), tokens > 0 and max(1, tokens * CUT) or 0
  seen[9], seen[10] = learnt[5] * (1 / CUT - 1) / GROWTH_S, learnt[6] * (1 / CUT - 1) / GROWTH_S
  seen[11], seen[12] = now, now
end
