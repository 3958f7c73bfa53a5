-- Account for a call that is over: give back what was not used, or charge the excess, and learn from it.
--
-- KEYS     1 state, 2 facts (see limit.lua)  3 log (zset, "ticket:tokens:input:output" -> send time)
--          4 leases (zset, ticket -> expiry)
-- ARGV     1 ticket  2 field of the facts with what its kind of call uses  3 thirteen packed doubles: 1 sent or 0 never
--          left, tokens, input, output charged, tokens, input, output used, tokens and output tokens asked for,
--          micro-dollars reserved, micro-dollars spent, time since its slot (us; below 0: it is to come), 1 the use is
--          known;  4 packed terms
-- Reply    packed: code, 0, now_us
-- Codes    1 settled;  0 the limit is not known any more, nothing to settle
local id, kind = ARGV[1], ARGV[2]
-- 1,000 kinds, and what is set, learnt and seen: of more kinds, which somebody invents, nothing is learnt.
local MOST_FACTS = 1003
local sent, tokens, input, output, used_tokens, used_input, used_output, asked, asked_output, reserved_money, money,
  since_slot, learns = struct.unpack('<ddddddddddddd', ARGV[3])
if call('EXISTS', KEYS[1]) == 0 then return reply(0, 0, now) end
local state = read_state(KEYS[1])
local facts = call('HMGET', KEYS[2], 'set', 'learnt', kind)
local terms = read_terms(ARGV[4], facts[1], facts[2])
local charged, used = {1, tokens, input, output}, {sent, used_tokens, used_input, used_output}
local changed = sent == 0 or tokens ~= used_tokens or input ~= used_input or output ~= used_output

-- While the limit is held, what comes back must not become the burst that the penalty took. A slot of a bucket that has
-- passed by more than the burst is lost: what took its place would come among those that are promised.
local lost = sent == 0 and terms[9] == 0 and since_slot > terms[8]
for k = 1, 4 do
  if terms[k] > 0 and charged[k] ~= used[k] and not lost then
    local us, clock = MINUTE_US / terms[k], state[k]
    local least = state[5] > now and min(clock, state[5] + burst_of(terms, k)) or -math.huge
    state[k] = max(clock - ceil(charged[k] * us) + ceil(used[k] * us), least)
  end
end
if sent == 1 then
  for k = 2, 4 do state[5 + k] = state[5 + k] + (used[k] - charged[k]) * weight_of_newest(state) end
end
-- The provider counted it some time between its slot and the answer: a quick answer says when at the latest.
local later = sent == 1 and since_slot * 100 < terms[9] and since_slot or 0
if terms[9] > 0 and (changed or later > 0) then
  local entry = format('%s:%.0f:%.0f:%.0f', id, tokens, input, output)
  local at = call('ZSCORE', KEYS[3], entry)
  if at then
    for k = 1, 4 do state[23 + k] = state[23 + k] - charged[k] + used[k] end
    call('ZREM', KEYS[3], entry)
    if sent == 1 then
      call('ZADD', KEYS[3], whole(at + later), format('%s:%.0f:%.0f:%.0f', id, used_tokens, used_input, used_output))
    end
  end
end
if terms[7] > 0 then
  call('ZREM', KEYS[4], id)
  if sent == 1 then state[31] = state[31] > 0 and state[31] * 0.9 + since_slot * 0.1 or since_slot end
end
if state[28] == floor(now / DAY_US) then
  state[29], state[30] = state[29] - 1 + sent, state[30] - reserved_money + money
end
state[22], state[23] = state[22] - 1 + sent, state[23] - tokens + used_tokens

-- Mean and mean deviation, as TCP learns round-trip times (RFC 6298).
local function learn(mean, deviation, share)
  if not mean then return share, share / 4 end
  return mean + (share - mean) / 16, deviation + (math.abs(share - mean) - deviation) / 16
end
if learns == 1 and asked > 0 and (facts[3] or call('HLEN', KEYS[2]) < MOST_FACTS) then
  local mean, deviation, out_mean, out_deviation = match(facts[3] or '', '(%S+) (%S+) (%S+) (%S+)')
  mean, deviation = learn(mean, deviation, used_tokens / asked)
  out_mean, out_deviation = learn(out_mean, out_deviation, asked_output > 0 and used_output / asked_output or 1)
  call('HSET', KEYS[2], kind, format('%.4f %.4f %.4f %.4f', mean, deviation, out_mean, out_deviation))
  call('PEXPIRE', KEYS[2], FACTS_MS)
end

local minute = floor(now / MINUTE_US)
if minute ~= state[32] then
  if minute == state[32] + 1 then state[35], state[36] = state[33], state[34] else state[35], state[36] = 0, 0 end
  state[32], state[33], state[34] = minute, 0, 0
end
state[33], state[34] = state[33] + sent, state[34] + used_tokens
write_state(KEYS[1], state)
return reply(1, 0, now)
