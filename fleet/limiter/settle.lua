-- Account for a call that is over: give back what was not used, or charge the excess, and learn from it.
--
-- KEYS     state, facts   see limit.lua
--          log            zset: "ticket:tokens:input:output" -> send time
--          leases         zset: ticket -> expiry
--          open           hash: ticket -> what the bill enters if nobody settles the call
-- ARGV     ticket
--          kind           field of the facts with what its kind of call uses
--          settled        packed: what was charged, used and paid; places: `layouts.py`
--          terms          packed
-- Reply    packed: code, 0, now_us
-- Codes    1 settled;  0 the limit is not known any more, nothing to settle
local ENTRY = '%s:%.0f:%.0f:%.0f'
-- What is set, learnt and seen, and who told of a hold, stands among the facts as well.
local NO_KINDS = 4
local sent, tokens, input, output, used_tokens, used_input, used_output, asked_tokens, asked_output,
  reserved_usd_micros, usd_micros, reserved_day, since_slot_us, learns, asked_usd_micros = struct.unpack(SETTLED_FORMAT, ARGV[SETTLED])

-- The provider counted it some time between its slot and the answer.
local function correct_window(state, terms, charged, used)
  local later = sent == 1 and since_slot_us < terms[WINDOW_US] * QUICK and since_slot_us or 0
  local changed = sent == 0 or tokens ~= used_tokens or input ~= used_input or output ~= used_output
  if not changed and later <= 0 then return end
  local entry = format(ENTRY, ARGV[TICKET], tokens, input, output)
  local at = call('ZSCORE', KEYS[LOG], entry)
  if not at then return end
  for k = 1, 4 do state[WINDOW + k] = state[WINDOW + k] - charged[k] + used[k] end
  call('ZREM', KEYS[LOG], entry)
  if sent == 1 then
    call('ZADD', KEYS[LOG], whole(at + later), format(ENTRY, ARGV[TICKET], used_tokens, used_input, used_output))
    call('PEXPIRE', KEYS[LOG], KEEP_MS)  -- the only entry was taken out, and the key with it
  end
end

-- Mean and mean deviation, as TCP learns round-trip times (RFC 6298).
local function learn(mean, deviation, share)
  if not mean then return share, share * FIRST_DEVIATION end
  return mean + (share - mean) * NEWEST_USE, deviation + (math.abs(share - mean) - deviation) * NEWEST_USE
end

local state, is_known = read_state(KEYS[STATE])
if not is_known then return reply(0, 0, now) end
local set, learnt, use = unpack(call('HMGET', KEYS[FACTS], 'set', 'learnt', ARGV[KIND]))
local terms = read_terms(ARGV[TERMS], set, learnt)
keep_calm(state, terms)
local charged, used = { 1, tokens, input, output }, { sent, used_tokens, used_input, used_output }

-- While the limit is held, what comes back must not become the burst that the penalty took. A slot of a bucket that has
-- passed by more than the burst is lost: what took its place would come among those that are promised.
local lost, held_until = sent == 0 and terms[WINDOW_US] == 0 and since_slot_us > terms[BURST_US], state[HELD_UNTIL]
for k = 1, 4 do
  if terms[k] > 0 and charged[k] ~= used[k] and not lost then
    local us, clock = MINUTE_US / terms[k], state[CLOCK + k]
    local least = held_until > now and min(clock, held_until + burst_of(terms, k)) or -math.huge
    state[CLOCK + k] = max(clock - ceil(charged[k] * us) + ceil(used[k] * us), least)
  end
end
if sent == 1 then
  local newest = weight_of_newest(state)
  for k = 2, 4 do state[MEAN + k] = state[MEAN + k] + (used[k] - charged[k]) * newest end
end
if terms[WINDOW_US] > 0 then correct_window(state, terms, charged, used) end
if terms[IN_FLIGHT] > 0 then
  call('ZREM', KEYS[LEASES], ARGV[TICKET])
  local mean = state[MEAN_FLIGHT_US]
  if sent == 1 then
    state[MEAN_FLIGHT_US] = mean > 0 and mean * (1 - NEWEST_FLIGHT) + since_slot_us * NEWEST_FLIGHT or since_slot_us
  end
end
if state[DAY] == reserved_day then  -- else that day is over, and its counts are gone
  state[DAY_REQUESTS] = state[DAY_REQUESTS] - 1 + sent
  state[DAY_USD_MICROS] = state[DAY_USD_MICROS] - reserved_usd_micros + usd_micros
  state[DAY_RESERVED] = max(0, state[DAY_RESERVED] - reserved_usd_micros)
end
state[GRANTED], state[GRANTED_TOKENS] = state[GRANTED] - 1 + sent, state[GRANTED_TOKENS] - tokens + used_tokens

if learns == 1 and asked_tokens > 0 and (use or call('HLEN', KEYS[FACTS]) < MOST_KINDS + NO_KINDS) then
  local mean, deviation, out_mean, out_deviation, cost = match(use or '', '(%S+) (%S+) (%S+) (%S+) ?(.*)')
  mean, deviation = learn(mean, deviation, used_tokens / asked_tokens)
  out_mean, out_deviation = learn(out_mean, out_deviation, asked_output > 0 and used_output / asked_output or 1)
  if asked_usd_micros > 0 then
    local cost_mean, cost_deviation = match(cost or '', '(%S+) (%S+)')
    cost = format('%.4f %.4f', learn(cost_mean, cost_deviation, usd_micros / asked_usd_micros))
  end
  local learnt_use = format('%.4f %.4f %.4f %.4f', mean, deviation, out_mean, out_deviation)
  call('HSET', KEYS[FACTS], ARGV[KIND], cost and cost ~= '' and learnt_use .. ' ' .. cost or learnt_use)
  if not use or floor(now / MINUTE_US) ~= state[MINUTE] then call('PEXPIRE', KEYS[FACTS], FACTS_MS) end
end

local minute = floor(now / MINUTE_US)
if minute ~= state[MINUTE] then
  local is_next = minute == state[MINUTE] + 1
  state[BEFORE_REQUESTS] = is_next and state[MINUTE_REQUESTS] or 0
  state[BEFORE_TOKENS] = is_next and state[MINUTE_TOKENS] or 0
  state[MINUTE], state[MINUTE_REQUESTS], state[MINUTE_TOKENS] = minute, 0, 0
end
state[MINUTE_REQUESTS], state[MINUTE_TOKENS] = state[MINUTE_REQUESTS] + sent, state[MINUTE_TOKENS] + used_tokens
write_state(KEYS[STATE], state)
if sent == 0 then call('HDEL', KEYS[OPEN], ARGV[TICKET]) end
return reply(1, 0, now)
