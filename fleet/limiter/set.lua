-- Set a limit's numbers while it is in use. What has been granted stays granted, but is counted at the new rate: a clock
-- that an old, slow rate has moved far ahead comes back at once.
--
-- KEYS     1 state, 2 facts (see limit.lua)
-- ARGV     1 "rpm tpm itpm otpm requests_a_day usd_micros_a_day in_flight", -1: as configured; '': all of them, and
--          what was learnt is forgotten as well, and a hold after a 429 ends  2 packed terms, as configured
-- Reply    packed: code, 0, now_us
-- Codes    1 set
local facts = call('HMGET', KEYS[2], 'set', 'learnt')
local old = read_terms(ARGV[2], facts[1], facts[2])
local new
if ARGV[1] == '' then
  call('HDEL', KEYS[2], 'set', 'learnt', 'seen')
  new = read_terms(ARGV[2], nil, nil)
else
  call('HSET', KEYS[2], 'set', ARGV[1])
  call('PEXPIRE', KEYS[2], FACTS_MS)
  new = read_terms(ARGV[2], ARGV[1], facts[2])
end

local state = read_state(KEYS[1])
for k = 1, 4 do
  if old[k] > 0 and new[k] > 0 and state[k] > now then state[k] = now + ceil((state[k] - now) * old[k] / new[k]) end
end
if ARGV[1] == '' and state[5] > now then
  state[5] = 0
  for k = 1, 4 do state[k] = min(state[k], now + ceil(burst_of(new, k))) end  -- where the penalty had moved them
end
if call('EXISTS', KEYS[1]) == 1 then write_state(KEYS[1], state) end
return reply(1, 0, now)
