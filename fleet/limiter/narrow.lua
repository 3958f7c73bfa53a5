-- The provider refused a call because too many were under way: from now on no more go at the same time than it takes. It
-- is no hold: what is under way makes room as it ends.
--
-- KEYS     state, facts   see limit.lua
--          leases         zset: ticket -> expiry
-- ARGV     most           calls at the same time, as the provider says; 0: it does not say
--          flying         calls of this process that are under way, but for the refused one
--          terms          packed
-- Reply    packed: code, most, now_us
-- Codes    1 noted
-- What the provider says is believed for a day. What was found is tried again after a minute, by a few more.
local SAID_US, FOUND_US = 86400000000, 60000000
-- Nobody goes for so long, so that those who were refused do not ask in a circle.
local BREATH_US = 250000

local set, was_learnt, was_seen, beside = unpack(call('HMGET', KEYS[FACTS], 'set', 'taught', 'told', 'beside'))
local state, learnt, seen = read_state(KEYS[STATE], beside), read_learnt(was_learnt), read_seen(was_seen)
local terms = read_terms(ARGV[TERMS], set, was_learnt)
local most, is_said = tonumber(ARGV[MOST]), tonumber(ARGV[MOST]) > 0
if not is_said then
  most = tonumber(ARGV[FLYING])
  if terms[IN_FLIGHT] > 0 then
    most = min(terms[IN_FLIGHT], max(most, call('ZCOUNT', KEYS[LEASES], whole(now), '+inf') - 1))
  end
end
learnt[IN_FLIGHT], learnt[IN_FLIGHT_GROWS] = max(1, floor(most)), now + (is_said and SAID_US or FOUND_US)
state[REFUSED], state[REFUSED_AT] = state[REFUSED] + 1, now
state[HELD_UNTIL] = max(state[HELD_UNTIL], now + BREATH_US)
write_state(KEYS[STATE], KEYS[FACTS], state)
write_facts(KEYS[FACTS], was_learnt, was_seen, learnt, seen)
return reply(1, learnt[IN_FLIGHT], now)
