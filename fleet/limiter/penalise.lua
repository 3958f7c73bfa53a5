-- The provider answered 429: nobody gets a slot before now + retry_after, and nobody finds a burst then.
--
-- KEYS     1 state, 2 facts (see limit.lua)
-- ARGV     1 retry_after (us)  2 packed terms
-- Reply    {code, wait_us, now_us}: wait_us until the limit is open again
-- Codes    1 held
local state = read_state(KEYS[1])
local facts = call('HMGET', KEYS[2], 'set', 'learnt')
local terms = read_terms(ARGV[2], facts[1], facts[2])
local p = max(state[5], now + tonumber(ARGV[1]))
state[5], state[37], state[38] = p, state[37] + 1, now

-- Clocks that stand a whole burst ahead at p: the first call may go at p, the next one an interval later.
for k = 1, 4 do
  if terms[k] > 0 then
    local one = k == 1 and MINUTE_US / terms[1] or 0
    state[k] = max(state[k], ceil(p + burst_of(terms, k) - one))
  end
end
write_state(KEYS[1], state)
return {1, p - now, now}
