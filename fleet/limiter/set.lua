-- Set a limit's numbers while it is in use. What has been granted stays granted, but is counted at the new rate: a clock
-- that an old, slow rate has moved far ahead comes back at once.
--
-- KEYS     state, facts   see limit.lua
--          log, leases    zsets, see acquire.lua
-- ARGV     set      "rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight", -1: as configured; '': all of them,
--                   and the limit begins anew: what was learnt is forgotten, a hold ends, nothing is owed; but what was
--                   used today stays counted
--          terms    packed, as configured
-- Reply    packed: code, 0, now_us
-- Codes    1 set
-- Beyond it a double is no count and no time any more.
local MOST_WHOLE = 2 ^ 53
local was_set, learnt, beside = unpack(call('HMGET', KEYS[FACTS], 'set', 'taught', 'beside'))
local old = read_terms(ARGV[TERMS], was_set, learnt)
local new
if ARGV[SET] == '' then
  call('HDEL', KEYS[FACTS], 'set', 'taught', 'told', 'learnt', 'seen', 'held_by')
  new = read_terms(ARGV[TERMS], nil, nil)
else
  call('HSET', KEYS[FACTS], 'set', ARGV[SET])
  call('PEXPIRE', KEYS[FACTS], FACTS_MS)
  new = read_terms(ARGV[TERMS], ARGV[SET], learnt)
end

local state = read_state(KEYS[STATE], beside)
for k = 1, 4 do
  local clock = state[CLOCK + k]
  if old[k] > 0 and new[k] > 0 and clock > now then state[CLOCK + k] = now + ceil((clock - now) * old[k] / new[k]) end
end
if ARGV[SET] == '' then
  for place = 1, STATE_PLACES + BESIDE_PLACES do
    if not (math.abs(state[place]) < MOST_WHOLE) then state[place] = 0 end  -- NaN is not below it either
  end
  state[HELD_UNTIL], state[SWEEP_AT], state[MEAN_FLIGHT_US] = 0, 0, 0
  for k = 1, 4 do
    state[CLOCK + k] = min(state[CLOCK + k], now + ceil(burst_of(new, k)))
    state[WINDOW + k], state[URGENT_SHARE + k], state[CREDIT + k] = 0, 0, 0
    if k > REQUESTS then state[MEAN + k] = 0 end
  end
  for class = 0, 3 do state[ASKED_MS + class] = 0 end
  call('DEL', KEYS[LOG], KEYS[LEASES])
end
if call('EXISTS', KEYS[STATE]) == 1 then write_state(KEYS[STATE], KEYS[FACTS], state) end
return reply(1, 0, now)
