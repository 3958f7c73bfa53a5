-- What all scripts of the limiter begin with; KEYS, ARGV and reply are each script's own.
--
-- State of a limit: a string, cmsgpack array of numbers, TTL 7 days beyond its latest clock. Times are microseconds of
-- Redis time.
--    1- 4  clocks of requests, tokens, input tokens, output tokens: GCRA's "theoretical arrival time"
--    5     nobody before this time: a provider said so       6     virtual time: start tag of the latest grant
--    7- 9  mean tokens, input, output tokens of a call, net  10-13 by class 1..4: share of grants to more urgent ones
--   14-17  by class 1..4: credit against the more urgent     18-21 by class 0..3: when it asked last (ms)
--   22-23  requests and tokens granted so far                24-27 requests, tokens, input, output in the window
--   28-30  day, its requests and micro-dollars               31    mean time in flight
--   32-36  minute, its requests and tokens, those of the minute before
--   37-38  refusals by the provider, time of the last one
-- Facts of a limit: a hash, TTL 30 days.
--   set       "rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight" set by an operator; -1: as configured
--   learnt    "rpm tpm source time" where no rate is configured; 0: unknown
--   q:KIND    "mean deviation mean deviation" of tokens and output tokens used, as shares of what was asked for
local KEEP_MS, FACTS_MS, MINUTE_US, DAY_US = 604800000, 2592000000, 60000000, 86400000000
local max, min, ceil, floor, format, match = math.max, math.min, math.ceil, math.floor, string.format, string.match
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function whole(number) return format('%.0f', number) end

local function read_state(key)
  local packed = call('GET', key)
  if packed then return cmsgpack.unpack(packed) end
  return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
end

local function write_state(key, state)
  local latest = max(now, state[1], state[2], state[3], state[4], state[5])
  call('SET', key, cmsgpack.pack(state), 'PX', whole(ceil((latest - now) / 1000) + KEEP_MS))
end

-- Terms of a limit: rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight burst_us window_us margin_us (0: not
-- limited; window 0: the provider has a bucket), packed as ten doubles; under what was learnt and what an operator set.
local function read_terms(packed, set, learnt)
  local terms = {struct.unpack('<dddddddddd', packed)}
  if learnt and terms[1] == 0 and terms[2] == 0 then
    local rpm, tpm = match(learnt, '(%S+) (%S+)')
    terms[1], terms[2] = tonumber(rpm), tonumber(tpm)
  end
  if set then
    local k = 0
    for number in string.gmatch(set, '%S+') do
      k, number = k + 1, tonumber(number)
      if number >= 0 then terms[k] = number end
    end
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
