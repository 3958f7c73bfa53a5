-- Account for calls that are over: give back what was not used, or charge the excess, and learn from them. The state is
-- read and written once, however many they are.
--
-- KEYS     state, facts   see limit.lua
--          log            zset: "ticket:tokens:input:output" -> send time
--          leases         zset: ticket -> expiry
--          open           hash: ticket -> what the bill enters if the process of the call dies before it does
-- ARGV     terms          packed
--          calls          of each call its ticket; the field of the facts with what its kind of call uses; packed: what was
--                         charged, used and paid; JSON of what it was settled at, for the note, or '': the note stays as
--                         it is; places: `layouts.py`
-- Reply    packed: code, 0, now_us
-- Codes    1 settled;  0 the limit is not known any more, nothing to settle
local ENTRY = '%s:%.0f:%.0f:%.0f'
-- What is set, learnt and seen, and who told of a hold, stands among the facts as well.
local NO_KINDS = 7
-- ARGV of a call.
local EACH = 4

-- The provider counted it some time between its slot and the answer.
local function correct_window(state, terms, ticket, settled, charged, used)
  local sent, since_slot_us = settled[SENT], settled[SINCE_SLOT_US]
  local later = sent == 1 and since_slot_us < terms[WINDOW_US] * QUICK and since_slot_us or 0
  local changed = sent == 0
  for k = 2, 4 do changed = changed or charged[k] ~= used[k] end
  if not changed and later <= 0 then return end
  local entry = format(ENTRY, ticket, charged[TOKENS], charged[INPUT], charged[OUTPUT])
  local at = call('ZSCORE', KEYS[LOG], entry)
  if not at then return end
  for k = 1, 4 do state[WINDOW + k] = state[WINDOW + k] - charged[k] + used[k] end
  call('ZREM', KEYS[LOG], entry)
  if sent == 1 then
    call('ZADD', KEYS[LOG], whole(at + later), format(ENTRY, ticket, used[TOKENS], used[INPUT], used[OUTPUT]))
    call('PEXPIRE', KEYS[LOG], KEEP_MS)  -- the only entry was taken out, and the key with it
  end
end

-- While the limit is held, what comes back must not become the burst that the penalty took. A slot of a bucket that has
-- passed by more than the burst is lost: what took its place would come among those that are promised.
local function give_back(state, terms, settled, charged, used)
  local sent, held_until = settled[SENT], state[HELD_UNTIL]
  local lost = sent == 0 and terms[WINDOW_US] == 0 and settled[SINCE_SLOT_US] > terms[BURST_US]
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
end

-- Mean and mean deviation, as TCP learns round-trip times (RFC 6298).
local function learn(mean, deviation, share)
  if not mean then return share, share * FIRST_DEVIATION end
  return mean + (share - mean) * NEWEST_USE, deviation + (math.abs(share - mean) - deviation) * NEWEST_USE
end

-- What calls of a kind use, after one more.
local function learn_use(use, settled)
  local asked_output, asked_usd_micros = settled[ASKED_OUTPUT], settled[ASKED_USD_MICROS]
  local mean, deviation, out_mean, out_deviation, cost = match(use or '', '(%S+) (%S+) (%S+) (%S+) ?(.*)')
  mean, deviation = learn(mean, deviation, settled[USED_TOKENS] / settled[ASKED_TOKENS])
  out_mean, out_deviation = learn(out_mean, out_deviation, asked_output > 0 and settled[USED_OUTPUT] / asked_output or 1)
  if asked_usd_micros > 0 then
    local cost_mean, cost_deviation = match(cost or '', '(%S+) (%S+)')
    cost = format('%.4f %.4f', learn(cost_mean, cost_deviation, settled[USD_MICROS] / asked_usd_micros))
  end
  local learnt_use = format('%.4f %.4f %.4f %.4f', mean, deviation, out_mean, out_deviation)
  return cost and cost ~= '' and learnt_use .. ' ' .. cost or learnt_use
end

local function settle(state, terms, ticket, settled)
  local sent, since_slot_us = settled[SENT], settled[SINCE_SLOT_US]
  local charged = { 1, settled[TOKENS], settled[INPUT], settled[OUTPUT] }
  local used = { sent, settled[USED_TOKENS], settled[USED_INPUT], settled[USED_OUTPUT] }
  give_back(state, terms, settled, charged, used)
  if terms[WINDOW_US] > 0 then correct_window(state, terms, ticket, settled, charged, used) end
  if terms[IN_FLIGHT] > 0 then
    call('ZREM', KEYS[LEASES], ticket)
    local mean = state[MEAN_FLIGHT_US]
    if sent == 1 then
      state[MEAN_FLIGHT_US] = mean > 0 and mean * (1 - NEWEST_FLIGHT) + since_slot_us * NEWEST_FLIGHT or since_slot_us
    end
  end
  if state[DAY] == settled[RESERVED_DAY] then  -- else that day is over, and its counts are gone
    local reserved = settled[RESERVED_USD_MICROS]
    state[DAY_REQUESTS] = state[DAY_REQUESTS] - 1 + sent
    state[DAY_USD_MICROS] = state[DAY_USD_MICROS] - reserved + settled[USD_MICROS]
    state[DAY_RESERVED] = max(0, state[DAY_RESERVED] - reserved)
  end
  state[GRANTED] = state[GRANTED] - 1 + sent
  state[GRANTED_TOKENS] = state[GRANTED_TOKENS] - charged[TOKENS] + used[TOKENS]
  state[MINUTE_REQUESTS] = state[MINUTE_REQUESTS] + sent
  state[MINUTE_TOKENS] = state[MINUTE_TOKENS] + used[TOKENS]
end

local kinds, uses = {}, {}
for i = CALLS + 1, #ARGV, EACH do
  local kind = ARGV[i + 1]
  if uses[kind] == nil then kinds[#kinds + 1], uses[kind] = kind, false end
end
local facts = call('HMGET', KEYS[FACTS], 'set', 'taught', 'beside', unpack(kinds))
local set, learnt, beside = unpack(facts)
for k, kind in ipairs(kinds) do uses[kind] = facts[k + 3] end
local state, is_known = read_state(KEYS[STATE], beside)
if not is_known then return reply(0, 0, now) end
local terms = read_terms(ARGV[TERMS], set, learnt)
keep_calm(state, terms)

local minute = floor(now / MINUTE_US)
local is_new_minute = minute ~= state[MINUTE]
if is_new_minute then
  local is_next = minute == state[MINUTE] + 1
  state[BEFORE_REQUESTS] = is_next and state[MINUTE_REQUESTS] or 0
  state[BEFORE_TOKENS] = is_next and state[MINUTE_TOKENS] or 0
  state[MINUTE], state[MINUTE_REQUESTS], state[MINUTE_TOKENS] = minute, 0, 0
end

local known, keeps_life, taught, unsent, noted, came_of = nil, is_new_minute, {}, {}, {}, {}
for i = CALLS + 1, #ARGV, EACH do
  local ticket, kind, settled, came = ARGV[i], ARGV[i + 1], { struct.unpack(SETTLED_FORMAT, ARGV[i + 2]) }, ARGV[i + 3]
  settle(state, terms, ticket, settled)
  if settled[SENT] == 0 then
    unsent[#unsent + 1] = ticket
  elseif came ~= '' then
    noted[#noted + 1], came_of[ticket] = ticket, came
  end
  if settled[LEARNS] == 1 and settled[ASKED_TOKENS] > 0 then
    if not uses[kind] then
      known = (known or call('HLEN', KEYS[FACTS])) + 1
      keeps_life = true
    end
    if uses[kind] or known <= MOST_KINDS + NO_KINDS then
      uses[kind] = learn_use(uses[kind], settled)
      taught[kind] = uses[kind]
    end
  end
end
local written = {}
for _, kind in ipairs(kinds) do
  if taught[kind] then written[#written + 1], written[#written + 2] = kind, taught[kind] end
end
if #written > 0 then
  call('HSET', KEYS[FACTS], unpack(written))
  if keeps_life then call('PEXPIRE', KEYS[FACTS], FACTS_MS) end
end
write_state(KEYS[STATE], KEYS[FACTS], state)
if #unsent > 0 then call('HDEL', KEYS[OPEN], unpack(unsent)) end
if #noted > 0 then
  local notes, completed = call('HMGET', KEYS[OPEN], unpack(noted)), {}
  for n, ticket in ipairs(noted) do
    if notes[n] then  -- there is none once the bill has the call
      completed[#completed + 1] = ticket
      completed[#completed + 1] = string.sub(notes[n], 1, -2) .. ',' .. came_of[ticket] .. ']'
    end
  end
  if #completed > 0 then call('HSET', KEYS[OPEN], unpack(completed)) end
end
return reply(1, 0, now)
