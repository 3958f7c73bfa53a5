-- What all scripts of the limiter begin with; KEYS, ARGV and reply are each script's own.
--
-- State of a limit: a string of 39 packed doubles, TTL 7 days beyond its latest clock; one of another length, as another
-- version of this file wrote it, counts as none. Times are microseconds of Redis time.
--    1- 4  clocks of requests, tokens, input tokens, output tokens: GCRA's "theoretical arrival time"
--    5     nobody before this time: a provider said so       6     virtual time: start tag of the latest grant
--    7- 9  mean tokens, input, output tokens of a call, net  10-13 by class 1..4: share of grants to more urgent ones
--   14-17  by class 1..4: credit against the more urgent     18-21 by class 0..3: when it asked last (ms)
--   22-23  requests and tokens granted so far                24-27 requests, tokens, input, output in the window
--   28-30  day, its requests and micro-dollars               31    mean time in flight
--   32-36  minute, its requests and tokens, those of the minute before
--   37-38  refusals by the provider, time of the last one    39     when to look for dead tickets and old entries again
-- Facts of a limit: a hash, TTL 30 days.
--   set       "rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight" set by an operator; -1: as configured
--   learnt, seen    what headers and 429s taught: see learning.lua
--   q:KIND    "mean deviation mean deviation" of tokens and output tokens used, as shares of what was asked for
local KEEP_MS, FACTS_MS, MINUTE_US, DAY_US = 604800000, 2592000000, 60000000, 86400000000
local STATE, STATE_BYTES = '<ddddddddddddddddddddddddddddddddddddddd', 312
local max, min, ceil, floor, format, match = math.max, math.min, math.ceil, math.floor, string.format, string.match
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- Replies are whole numbers, packed into one string, eight bytes each: an array is a send of its own from Redis 6, and so
-- wakes up the client once more, even in a pipeline.
local function reply(...) return struct.pack('<' .. string.rep('i8', select('#', ...)), ...) end

-- Cut to an integer; `tostring` would round microseconds to 14 digits.
local function whole(number) return format('%d', number) end

-- A clock that was set back, or a new master whose clock is behind: what the state knows of times moves back with it, at
-- most the time too little that nobody asked. By less than this is waited for. The next question sees 39 below 0.
local STEP_US = 1000000
local function follow_clock(state)
  local back = state[39] - now
  if back < STEP_US then return end
  for k = 1, 5 do state[k] = max(0, state[k] - back) end
  for k = 18, 21 do state[k] = max(0, state[k] - floor(back / 1000)) end
  state[32], state[38], state[39] = floor(now / MINUTE_US), max(0, state[38] - back), -1
end

local function read_state(key)
  local packed = call('GET', key)
  if packed and #packed == STATE_BYTES then
    local state = {struct.unpack(STATE, packed)}
    state[40] = nil  -- the place after the last number
    follow_clock(state)
    return state
  end
  return {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  }
end

local function write_state(key, state)
  local latest = max(now, state[1], state[2], state[3], state[4], state[5])
  call('SET', key, struct.pack(STATE, unpack(state, 1, 39)), 'PX', whole(ceil((latest - now) / 1000) + KEEP_MS))
end

-- Terms of a limit: rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight burst_us window_us margin_us (0: not
-- limited; window 0: the provider has a bucket), packed as ten doubles; under what an operator set, and never more than
-- what the provider says. 11-14 what others use of the window, where they do.
local function read_terms(packed, set, learnt)
  local terms = {struct.unpack('<dddddddddd', packed)}
  terms[11] = nil  -- the place after the last number
  if set then
    local k = 0
    for number in string.gmatch(set, '%S+') do
      k, number = k + 1, tonumber(number)
      if number >= 0 then terms[k] = number end
    end
  end
  if learnt and #learnt == 88 then
    local told = {struct.unpack('<ddddddddddd', learnt)}
    for k = 1, 4 do
      if told[k] > 0 and (terms[k] == 0 or told[k] < terms[k]) then terms[k] = told[k] end
      if told[11] > now then terms[10 + k] = told[6 + k] end
    end
    if terms[1] == 0 and terms[2] == 0 and terms[3] == 0 and terms[4] == 0 then terms[1], terms[2] = told[5], told[6] end
  end
  return terms
end

-- How far clock k may be ahead: the burst, and for requests at least one interval.
local function burst_of(terms, k)
  if k == 1 and terms[1] > 0 then return max(terms[8], MINUTE_US / terms[1]) end
  return terms[8]
end

-- Weight of the newest call in the means: of all calls at first, then of the last hundred.
local function weight_of_newest(state) return max(0.01, 1 / (state[22] + 1)) end
