-- What all scripts of the limiter begin with; KEYS, ARGV and reply are each script's own. Places of `state`, `learnt` and
-- `seen`: `layouts.py`; numbers in capitals that are not set here: `limits.py`; rates and classes are numbered as there.
--
-- State of a limit: a string of packed doubles, TTL 7 days beyond its latest clock; one of another length, as another
-- version of this file wrote it, counts as none. Times are microseconds of Redis time. Its length and places are those of
-- 0.2, whose workers may be at work beside ours and would count from nothing again: what came later stands in the facts.
-- Facts of a limit: a hash, TTL 30 days.
--   set       "rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight" set by an operator; -1: as configured
--   beside    packed: the state's places from the first one that 0.2 did not have
--   taught, told    packed: what headers and 429s taught, see learning.lua; 0.2 has `learnt` and `seen` of its own
--   held_by   who told of the latest hold: a sentence
--   q:KIND    "mean deviation mean deviation mean deviation" of tokens, output tokens and money used, as shares of what
--             was asked for; without the last two where no call had a price
local KEEP_MS, FACTS_MS = 604800000, 2592000000
-- Numbers of the rates.
local REQUESTS, TOKENS, INPUT, OUTPUT = 1, 2, 3, 4
-- A clock that is set back by less than this is waited for.
local STEP_US = 1000000
local max, min, ceil, floor, format, match = math.max, math.min, math.ceil, math.floor, string.format, string.match
local call = redis.call
local seconds, microseconds = unpack(call('TIME'))
local now = seconds * 1000000 + microseconds

-- Replies are whole numbers, packed into one string, eight bytes each: an array is a send of its own from Redis 6, and so
-- wakes up the client once more, even in a pipeline.
local function reply(...) return struct.pack('<' .. string.rep('i8', select('#', ...)), ...) end

-- Cut to an integer; `tostring` would round microseconds to 14 digits.
local function whole(number) return format('%d', number) end

-- A clock that was set back, or a new master whose clock is behind: what the state knows of times moves back with it, at
-- most the time too little that nobody asked. The next question sees it by the sign of SWEEP_AT.
local function follow_clock(state)
  local back = state[SWEEP_AT] - now
  if back < STEP_US then return end
  for k = 1, 4 do state[CLOCK + k] = max(0, state[CLOCK + k] - back) end
  state[HELD_UNTIL], state[CALM_AT] = max(0, state[HELD_UNTIL] - back), max(0, state[CALM_AT] - back)
  for class = 0, 3 do state[ASKED_MS + class] = max(0, state[ASKED_MS + class] - floor(back / 1000)) end
  state[MINUTE], state[REFUSED_AT], state[SWEEP_AT] = floor(now / MINUTE_US), max(0, state[REFUSED_AT] - back), -1
end

-- The state, with what stands of it among the facts, and whether there is any.
local function read_state(key, beside)
  local packed = call('GET', key)
  if not packed or #packed ~= STATE_BYTES then return { STATE_ZEROS, BESIDE_ZEROS }, packed end
  local state, is_whole = { struct.unpack(STATE_FORMAT, packed) }, beside and #beside == BESIDE_BYTES
  local more = is_whole and { struct.unpack(BESIDE_FORMAT, beside) } or { BESIDE_ZEROS }
  for k = 1, BESIDE_PLACES do state[STATE_PLACES + k] = more[k] end
  state.beside = beside
  follow_clock(state)
  return state, packed
end

local function write_state(key, facts, state)
  state.dirty = nil
  local latest = max(now, state[CLOCK + REQUESTS], state[CLOCK + TOKENS], state[CLOCK + INPUT],
    state[CLOCK + OUTPUT], state[HELD_UNTIL])
  local packed = struct.pack(STATE_FORMAT, unpack(state, 1, STATE_PLACES))
  call('SET', key, packed, 'PX', whole(ceil((latest - now) / 1000) + KEEP_MS))
  local beside = struct.pack(BESIDE_FORMAT, unpack(state, STATE_PLACES + 1, STATE_PLACES + BESIDE_PLACES))
  if beside == state.beside then return end
  state.beside = beside
  if call('HSET', facts, 'beside', beside) == 1 then call('PEXPIRE', facts, FACTS_MS) end
end

-- Note when money was last reserved, so roughly that what stands among the facts is seldom written for it.
local function reserve_at(state)
  if now - state[RESERVED_AT] >= RESERVED_US or state[RESERVED_AT] > now then state[RESERVED_AT] = now end
end

-- Calls at the same time under what a refusal taught, which grows again and at last is no limit any more; 0: none.
local function learnt_in_flight(least, grows_at)
  local more = floor(max(0, now - grows_at) / IN_FLIGHT_STEP_US) * max(1, floor(least * IN_FLIGHT_GROWTH))
  return least + more < least * IN_FLIGHT_FADES and least + more or 0
end

-- Terms of a limit (0: not limited; WINDOW_US 0: the provider has a bucket): as configured, under what an operator set,
-- and never more than what the provider says. OTHERS: what others use of the window, where they do.
local function read_terms(packed, set, learnt)
  local terms = { struct.unpack(TERMS_FORMAT, packed) }
  terms[TERMS_PLACES + 1] = nil  -- the place after the last number
  if set then
    local k = 0
    for number in string.gmatch(set, '%S+') do
      k, number = k + 1, tonumber(number)
      if number >= 0 then terms[k] = number end
    end
  end
  if learnt and #learnt == LEARNT_BYTES then
    learnt = { struct.unpack(LEARNT_FORMAT, learnt) }
    for k = 1, 4 do
      local allowed = learnt[ALLOWED + k]
      if allowed > 0 and (terms[k] == 0 or allowed < terms[k]) and learnt[ALLOWED_UNTIL + k] > now then
        terms[k] = allowed
      end
      if learnt[OTHERS_UNTIL] > now then terms[OTHERS + k] = learnt[OTHERS + k] end
    end
    if terms[RPM] == 0 and terms[TPM] == 0 and terms[ITPM] == 0 and terms[OTPM] == 0 then
      terms[RPM], terms[TPM] = learnt[GUESS + REQUESTS], learnt[GUESS + TOKENS]
    end
    if learnt[PACED_UNTIL] > now and (terms[RPM] == 0 or learnt[PACED] < terms[RPM]) then terms[RPM] = learnt[PACED] end
    if learnt[IN_FLIGHT] > 0 then
      local most = learnt_in_flight(learnt[IN_FLIGHT], learnt[IN_FLIGHT_GROWS])
      if most > 0 and (terms[IN_FLIGHT] == 0 or most < terms[IN_FLIGHT]) then terms[IN_FLIGHT] = most end
    end
  end
  return terms
end

-- After an outage or a used-up day the burst is what makes up for late questions, and grows again so slowly that the pace stays the limit's.
local function keep_calm(state, terms)
  if state[CALM_AT] <= 0 then return end
  local burst_us = CALM_BURST_US + max(0, now - state[CALM_AT]) * CALM_GROWTH
  if burst_us < terms[BURST_US] then terms[BURST_US] = burst_us else state[CALM_AT] = 0 end
end

-- How far the clock of rate k may be ahead: the burst, and for requests at least one interval.
local function burst_of(terms, k)
  if k == REQUESTS and terms[RPM] > 0 then return max(terms[BURST_US], MINUTE_US / terms[RPM]) end
  return terms[BURST_US]
end

-- Clocks that stand a whole burst ahead of `opens`: the first call may go then, the next one an interval later.
local function spend_bursts(state, terms, opens)
  for k = 1, 4 do
    if terms[k] > 0 then
      local one_us = k == REQUESTS and MINUTE_US / terms[RPM] or 0
      state[CLOCK + k] = max(state[CLOCK + k], ceil(opens + burst_of(terms, k) - one_us))
    end
  end
end

local function weight_of_newest(state) return max(NEWEST_CALL, 1 / (state[GRANTED] + 1)) end
