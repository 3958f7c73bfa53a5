-- Set a limit's numbers while it is in use. What has been granted stays granted, but is counted at the new rate: a clock
-- that an old, slow rate has moved far ahead comes back at once.
--
-- KEYS     state, facts   see limit.lua
-- ARGV     set      "rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight", -1: as configured; '': all of them,
--                   and what was learnt is forgotten as well, and a hold after a 429 ends
--          terms    packed, as configured
-- Reply    packed: code, 0, now_us
-- Codes    1 set
local was_set, learnt = unpack(call('HMGET', KEYS[FACTS], 'set', 'learnt'))
local old = read_terms(ARGV[TERMS], was_set, learnt)
local new
if ARGV[SET] == '' then
  call('HDEL', KEYS[FACTS], 'set', 'learnt', 'seen')
  new = read_terms(ARGV[TERMS], nil, nil)
else
  call('HSET', KEYS[FACTS], 'set', ARGV[SET])
  call('PEXPIRE', KEYS[FACTS], FACTS_MS)
  new = read_terms(ARGV[TERMS], ARGV[SET], learnt)
end

local state = read_state(KEYS[STATE])
for k = 1, 4 do
  local clock = state[CLOCK + k]
  if old[k] > 0 and new[k] > 0 and clock > now then state[CLOCK + k] = now + ceil((clock - now) * old[k] / new[k]) end
end
if ARGV[SET] == '' and state[HELD_UNTIL] > now then
  state[HELD_UNTIL] = 0
  for k = 1, 4 do  -- where the penalty had moved them
    state[CLOCK + k] = min(state[CLOCK + k], now + ceil(burst_of(new, k)))
  end
end
if call('EXISTS', KEYS[STATE]) == 1 then write_state(KEYS[STATE], state) end
return reply(1, 0, now)
