-- The provider answered 429: nobody gets a slot before now + retry_after, and nobody finds a burst then. Where no rate is
-- known, one is guessed from the pace that led here.
--
-- KEYS     1 state, 2 facts (see limit.lua)
-- ARGV     1 retry_after (us)  2 packed terms
-- Reply    packed: code, wait_us, now_us: wait_us until the limit is open again
-- Codes    1 held
local state = read_state(KEYS[1])
local facts = call('HMGET', KEYS[2], 'set', 'learnt', 'seen')
local terms = read_terms(ARGV[2], facts[1], facts[2])
local p = max(state[5], now + tonumber(ARGV[1]))
state[5], state[37], state[38] = p, state[37] + 1, now

local learnt = read_learnt(facts[2])
if learnt[5] > 0 or terms[1] == 0 and terms[2] == 0 and terms[3] == 0 and terms[4] == 0 then
  local seen = read_seen(facts[3])
  cut_guess(learnt, seen, state)
  write_facts(KEYS[2], facts, learnt, seen)
  terms = read_terms(ARGV[2], facts[1], pack_learnt(learnt))
end

-- Clocks that stand a whole burst ahead at p: the first call may go at p, the next one an interval later.
for k = 1, 4 do
  if terms[k] > 0 then
    local one = k == 1 and MINUTE_US / terms[1] or 0
    state[k] = max(state[k], ceil(p + burst_of(terms, k) - one))
  end
end
write_state(KEYS[1], state)
return reply(1, p - now, now)
