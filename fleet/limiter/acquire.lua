-- Ask for one call: the answer is a time to send, or a time to ask again, or that it is too late.
--
-- A call waits as a ticket, ordered by (class, start tag of its bot). A slot is committed only when the ticket's turn is
-- closer than a horizon, so that what is urgent or has had less passes everything that still sleeps.
--
-- KEYS     seven for each candidate: 1 state, 2 facts (see limit.lua)  3 queue (zset, ticket -> order, TTL 10 min)
--          4 due (zset, ticket -> time at which it asks again, TTL 10 min)  5 log (zset, "ticket:tokens:input:output" ->
--          send time, TTL 7 days)  6 leases (zset, ticket -> expiry, TTL 7 days)  7 bots (zset, bot -> finish tag,
--          TTL 7 days)
-- ARGV     1 ticket  2 bot ('': all callers without a name are one)  3 field of the facts with what its kind of call uses  4 thirteen packed doubles: class (0 most
--          urgent .. 4), order it had when it asked before (-1: it did not), candidate that it asked then, charge of a
--          call in the fair order / weight (0: its tokens), weight, 1: share by tenant, tokens, input, output tokens,
--          micro-dollars, longest wait (us), random [0, 1), lease (us);  then the packed terms of each candidate
-- Reply    packed: code, wait_us, order, now_us, held_us, idle slots, backlog_us, candidate, quiet_us, tokens, input, output
--          charged, requests and tokens granted so far, horizon_us;  then what an operator set; quiet_us: a process with many
--          waiting calls that has not asked for so long had better ask
-- Codes    1 send after wait_us;  2 ask again after wait_us;  0 too late: the slot would be in wait_us, ticket dropped
local id, bot, kind = ARGV[1], ARGV[2], ARGV[3]
local class, given, given_at, charge, weight, by_tenant, tokens, input, output, money, max_wait, random, lease =
  struct.unpack('<ddddddddddddd', ARGV[4])

-- Dead tickets and entries that no window holds any more are looked for so often (us), and when entries are in the way.
local SWEEP_US = 20000
-- Horizons (us): the long one costs fewer questions; the short one holds while more urgent calls are about. Slow limits
-- have longer ones: a mean call, and half of one.
local LONG_US, SHORT_US, URGENT_MEMORY_MS = 350000, 60000, 60000
-- A ticket that is so late is taken for dead (us), and so are those of its process among the first in the order; if one
-- comes all the same, it keeps its place.
local GRACE_US, FIRST = 150000, 128
-- Who waits long is asked again by this share of its wait earlier: long estimates are further off.
local FAR_SHARE = 0.1
-- For every LEAVE grants to more urgent classes a class that waits gets one.
local LEAVE = 7
local CLASS = 1e15
local QUEUE_MS, MAX_SLEEP_US, MIN_SLEEP_US = 600000, 15000000, 1000
local ANSWER = '<i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8'
local PROCESS = '%-(.+)%-'
local ENTRY = '^[^:]*:(%d+):(%d+):(%d+)$'

-- Return when the window has room for `need`, and whether that is not known yet. Drops what is no longer counted; looks
-- at no more than 64 entries.
local function window_opens(state, terms, need, log)
  local kept_us, most, opens = terms[9] + terms[10], {}, now
  for k = 1, 4 do
    local limit = max(1, floor(terms[k] * terms[9] / MINUTE_US - (terms[10 + k] or 0)))
    most[k] = terms[k] > 0 and limit - min(need[k], limit) or math.huge
  end
  local r, t, i, o = state[24], state[25], state[26], state[27]
  local over = r > most[1] or t > most[2] or i > most[3] or o > most[4]
  local first, dropped = (over or now >= state[39]) and 0 or 64, 0
  while first < 64 do
    local entries = call('ZRANGE', log, first, first + 7, 'WITHSCORES')
    first = #entries == 16 and first + 8 or 64
    for e = 1, #entries, 2 do
      local leaves, et, ei, eo = entries[e + 1] + kept_us, match(entries[e], ENTRY)
      if leaves > now then
        if not over then first = 64 break end
        opens = leaves
      end
      r, t, i, o = r - 1, t - et, i - ei, o - eo
      over = r > most[1] or t > most[2] or i > most[3] or o > most[4]
      if leaves <= now then
        dropped, state[24], state[25], state[26], state[27], state.dirty = dropped + 1, r, t, i, o, true
      end
    end
  end
  if dropped > 0 then call('ZREMRANGEBYRANK', log, 0, dropped - 1) end
  return opens, over
end

-- Drop tickets whose caller did not come back, and those of its process: they would hold their places, and lengthen the
-- estimates of all, until each should have asked. Where nobody has asked for a while, to be late says little of a process.
local function drop_dead(queue, due, dead, others_asked)
  local of_dead = {}
  for _, ticket in ipairs(dead) do of_dead[match(ticket, PROCESS) or ''] = true end
  of_dead[''], of_dead[match(id, PROCESS) or ''] = nil, nil  -- who asks is alive
  for k = #dead, 1, -1 do
    if dead[k] == id then table.remove(dead, k) end
  end
  if others_asked and next(of_dead) then
    for _, ticket in ipairs(call('ZRANGE', queue, 0, FIRST - 1)) do
      if of_dead[match(ticket, PROCESS) or ''] then dead[#dead + 1] = ticket end
    end
  end
  if #dead > 0 then
    call('ZREM', queue, unpack(dead))
    call('ZREM', due, unpack(dead))
  end
end

local function write_numbers(key, state)
  state.dirty = nil
  write_state(key, state)
end

-- How the call stands with candidate c.
local function survey(c)
  local base = (c - 1) * 7
  local facts = call('HMGET', KEYS[base + 2], 'set', 'learnt', kind)
  local state = read_state(KEYS[base + 1])
  if state[39] < 0 then  -- the clock was set back: pace holds, the window begins anew, calls in flight are forgotten
    call('DEL', KEYS[base + 5], KEYS[base + 6])
    state[24], state[25], state[26], state[27] = 0, 0, 0, 0
  end
  local terms = read_terms(ARGV[4 + c], facts[1], facts[2])
  local need = {1, tokens, input, output}
  if facts[3] then
    local mean, deviation, out_mean, out_deviation = match(facts[3], '(%S+) (%S+) (%S+) (%S+)')
    need[2] = ceil(tokens * min(4, mean + deviation))
    need[4] = ceil(output * min(4, out_mean + out_deviation))
    need[2] = max(need[2], input + need[4])  -- the share of long answers says nothing of a long prompt, which is known
  end

  -- The slot: no clock further ahead than its burst. It may lie in the past, at most a burst: capacity left over.
  local slot, interval, blocked = now - terms[8], 0, false
  for k = 1, 4 do
    local rate = terms[k]
    if rate > 0 then
      local us, burst = MINUTE_US / rate, terms[8]
      if k == 1 then
        if us > burst then burst = us end
        if us > interval then interval = us end
      else
        local mean = state[5 + k]
        interval = max(interval, (mean > 0 and mean or need[k]) * us)
      end
      slot = max(slot, state[k] + min(ceil(need[k] * us), burst) - burst)
    end
  end
  if state[5] > slot then slot = state[5] end
  if terms[9] > 0 then
    local opens
    opens, blocked = window_opens(state, terms, need, KEYS[base + 5])
    if opens > now then slot = max(slot, opens) end
  end
  if terms[7] > 0 then
    local flight = (state[31] > 0 and state[31] or 1000000) / terms[7]
    interval = max(interval, flight)
    if call('ZCARD', KEYS[base + 6]) >= terms[7] then
      call('ZREMRANGEBYSCORE', KEYS[base + 6], '-inf', whole(now))
      if call('ZCARD', KEYS[base + 6]) >= terms[7] then slot, blocked = max(slot, now + flight), true end
    end
  end
  if terms[5] > 0 or terms[6] > 0 then
    local today = floor(now / DAY_US)
    if state[28] ~= today then state[28], state[29], state[30] = today, 0, 0 end
    if (terms[5] > 0 and state[29] + 1 > terms[5]) or (terms[6] > 0 and state[30] + money > terms[6]) then
      slot = max(slot, (today + 1) * DAY_US)
    end
  end

  -- The order, without the dead: 16 at a time.
  local queue, due = KEYS[base + 3], KEYS[base + 4]
  if now >= state[39] then
    local others_asked = now - state[39] < GRACE_US
    local dead = call('ZRANGEBYSCORE', due, '-inf', whole(now - GRACE_US), 'LIMIT', 0, 16)
    if #dead < 16 then state[39] = now + SWEEP_US end
    if #dead > 0 then drop_dead(queue, due, dead, others_asked) end
    state.dirty = true
  end
  if state.dirty and #ARGV > 5 then write_numbers(KEYS[base + 1], state) end  -- it may not be the one that is chosen
  local order, fresh = given, false
  if given < 0 or given_at ~= c then
    order, fresh = class * CLASS + max(state[6], tonumber(call('ZSCORE', KEYS[base + 7], bot) or 0)), true
  end
  local rank = not fresh and call('ZRANK', queue, id)
  local waits = rank and true
  rank = rank or call('ZCOUNT', queue, '-inf', whole(order))

  -- What goes to the more urgent, the credit against them, and how far ahead slots are committed.
  local own, horizon, ahead_us, credit, urgent = rank, max(LONG_US, interval), rank * interval, 0, 0
  for k = 1, class do urgent = max(urgent, state[17 + k]) end
  if urgent > 0 and now / 1000 - urgent < URGENT_MEMORY_MS then
    horizon, credit = max(SHORT_US, interval / 2), state[13 + class]
    if rank > 0 then own = rank - call('ZCOUNT', queue, '-inf', '(' .. whole(class * CLASS)) end
    local by_order = rank - own + own / max(1 - state[9 + class], 1 / (1 + LEAVE))
    ahead_us = min(by_order, max(0, own + 1 - credit) * (1 + LEAVE)) * interval
  end
  local in_turn = slot + rank * interval - now <= horizon
  local by_credit = not in_turn and credit >= own + 1 and slot - now <= max(LONG_US, interval)
  return {
    c = c, base = base, set = facts[1] or '', state = state, terms = terms, need = need, slot = slot,
    interval = interval, order = order, rank = rank, waits = waits, fresh = fresh, horizon = horizon,
    est = slot + ahead_us, by_credit = by_credit,
    -- The burst is full and slots are being lost: whoever is ahead sleeps too long, so whoever asks may go.
    may_go = not blocked and (in_turn or by_credit or now - slot >= terms[8]),
  }
end

local at = survey(1)
if #ARGV > 5 then
  for c = 2, #ARGV - 4 do
    local other = survey(c)
    if other.may_go == at.may_go and other.est < at.est or other.may_go and not at.may_go then at = other end
  end
  if given >= 0 and given_at ~= at.c then  -- a ticket waits in one order only
    call('ZREM', KEYS[given_at * 7 - 4], id)
    call('ZREM', KEYS[given_at * 7 - 3], id)
  end
end
local base, state, terms, need, slot, order = at.base, at.state, at.terms, at.need, at.slot, at.order
local queue, due, bots = KEYS[base + 3], KEYS[base + 4], KEYS[base + 7]

local function answer(code, wait, backlog)
  -- Slots that would soon be lost, for whoever asks: told only when a quarter of the burst is unused, else all would poll.
  local unused = now - slot - terms[8] / 4
  local idle = unused >= 0 and at.interval > 0 and floor(unused / at.interval) + 1 or 0
  return struct.pack(ANSWER, code, ceil(wait), order, now, state[5] > now and state[5] or 0, idle, ceil(backlog), at.c,
    floor(max(LONG_US, at.interval) / 3), need[2], need[3], need[4], state[22], state[23], floor(at.horizon)) .. at.set
end

local function leave_queue()
  if at.waits then
    call('ZREM', queue, id)
    call('ZREM', due, id)
  end
end

if max(slot - now, 0) > max_wait or not at.may_go and at.est - now > 1.25 * max_wait + at.horizon then
  leave_queue()
  if state.dirty then write_numbers(KEYS[base + 1], state) end
  return answer(0, max(at.est, slot) - now, at.est - now)
end

if class < 4 and now / 1000 - state[18 + class] > 1000 then state[18 + class], state.dirty = floor(now / 1000), true end
if at.fresh then
  local price = charge > 0 and charge or max(1, need[2]) / weight
  if by_tenant == 1 then price = price * max(1, call('ZCOUNT', bots, '(' .. whole(state[6]), '+inf')) end
  local is_new = call('ZADD', bots, whole(order % CLASS + price), bot)
  if is_new == 1 or now % 64 == 1 then call('PEXPIRE', bots, KEEP_MS) end
end

if not at.may_go then
  local wait = at.est - now - max(at.horizon, (at.est - now) * FAR_SHARE) * (0.15 + 0.4 * random)
  wait = min(max(wait, MIN_SLEEP_US + random * at.horizon * 0.2), MAX_SLEEP_US * (1 + random), max_wait)
  if not at.waits then call('ZADD', queue, whole(order), id) end
  call('ZADD', due, whole(now + wait), id)
  if at.rank == 0 or now % 64 == 0 then  -- the first one made the keys
    call('PEXPIRE', queue, QUEUE_MS)
    call('PEXPIRE', due, QUEUE_MS)
  end
  if state.dirty then write_numbers(KEYS[base + 1], state) end
  return answer(2, wait, at.est - now)
end

local send, newest = max(now, slot), weight_of_newest(state)
for k = 1, 4 do
  if terms[k] > 0 then state[k] = max(send, state[k]) + ceil(need[k] * MINUTE_US / terms[k]) end
  if k > 1 then state[5 + k] = state[5 + k] + (need[k] - state[5 + k]) * newest end
  local more_urgent = class < k
  state[9 + k] = state[9 + k] * 0.97 + (more_urgent and 0.03 or 0)
  if more_urgent then state[13 + k] = min(2, state[13 + k] + 1 / LEAVE) end
  if terms[9] > 0 then state[23 + k] = state[23 + k] + need[k] end
end
if at.by_credit then state[13 + class] = state[13 + class] - 1 end
state[6], state[22], state[23] = max(state[6], order % CLASS), state[22] + 1, state[23] + need[2]
state[29], state[30] = state[29] + 1, state[30] + money
write_numbers(KEYS[base + 1], state)
leave_queue()
if terms[9] > 0 then
  call('ZADD', KEYS[base + 5], whole(send), format('%s:%d:%d:%d', id, need[2], need[3], need[4]))
  call('PEXPIRE', KEYS[base + 5], KEEP_MS)
end
if terms[7] > 0 then
  call('ZADD', KEYS[base + 6], whole(send + lease), id)
  call('PEXPIRE', KEYS[base + 6], KEEP_MS)
end
if now % 64 == 0 then call('ZREMRANGEBYSCORE', bots, '-inf', whole(state[6])) end
return answer(1, send - now, send - now)
