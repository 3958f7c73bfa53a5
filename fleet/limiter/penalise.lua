-- The provider answered 429: nobody gets a slot before now + retry_after, and nobody finds a burst then. Where no rate is
-- known, one is guessed from the pace that led here.
--
-- KEYS     state, facts     see limit.lua
-- ARGV     retry_after_us   below 0: an operator ends the hold; a burst at most is owed, and none is found
--          held_by          who says so
--          terms            packed
-- Reply    packed: code, wait_us, now_us: wait_us until the limit is open again
-- Codes    1 held;  0 ended
local set, was_learnt, was_seen, beside = unpack(call('HMGET', KEYS[FACTS], 'set', 'taught', 'told', 'beside'))
local state = read_state(KEYS[STATE], beside)
local terms = read_terms(ARGV[TERMS], set, was_learnt)
keep_calm(state, terms)
local retry_after_us = tonumber(ARGV[RETRY_AFTER_US])
if retry_after_us < 0 then
  state[HELD_UNTIL], state[CALM_AT] = 0, now
  keep_calm(state, terms)
  for k = 1, 4 do state[CLOCK + k] = min(state[CLOCK + k], now + ceil(burst_of(terms, k))) end
  call('HDEL', KEYS[FACTS], 'held_by')
  write_state(KEYS[STATE], KEYS[FACTS], state)
  return reply(0, 0, now)
end
local opens = max(state[HELD_UNTIL], now + retry_after_us)
if opens > state[HELD_UNTIL] then
  call('HSET', KEYS[FACTS], 'held_by', ARGV[HELD_BY])
  call('PEXPIRE', KEYS[FACTS], FACTS_MS)
end
state[HELD_UNTIL], state[REFUSED], state[REFUSED_AT] = opens, state[REFUSED] + 1, now

local learnt = read_learnt(was_learnt)
local is_unknown = terms[RPM] == 0 and terms[TPM] == 0 and terms[ITPM] == 0 and terms[OTPM] == 0
if learnt[GUESS + REQUESTS] > 0 or is_unknown then
  local seen = read_seen(was_seen)
  cut_guess(learnt, seen, state)
  write_facts(KEYS[FACTS], was_learnt, was_seen, learnt, seen)
  terms = read_terms(ARGV[TERMS], set, pack_learnt(learnt))
  keep_calm(state, terms)
end

spend_bursts(state, terms, opens)
write_state(KEYS[STATE], KEYS[FACTS], state)
return reply(1, opens - now, now)
