-- Ask for calls, one after the other: the answer is a time to send, or a time to ask again, or that it is too late.
-- States are read and written once, however many ask.
--
-- A call waits as a ticket, ordered by (class, start tag of its bot). A slot is committed only when the ticket's turn is
-- closer than a horizon, so that what is urgent or has had less passes everything that still sleeps.
--
-- KEYS     for each candidate:
--          state, facts   see limit.lua
--          queue          zset: ticket -> order                                         TTL 10 min
--          due            zset: ticket -> time at which it asks again                   TTL 10 min
--          log            zset: "ticket:tokens:input:output" -> send time               TTL 7 days
--          leases         zset: ticket -> expiry                                        TTL 7 days
--          open           hash: ticket -> send time (us), cost (micro-dollars), note    TTL 7 days
--          bots           zset: bot -> finish tag                                       TTL 7 days
-- ARGV     terms          of all candidates, packed
--          calls          of each call its ticket; its bot ('': all callers without a name are one); the field of the facts
--                         with what its kind of call uses; packed: the numbers of the question, places: `layouts.py`;
--                         what the bill enters if nobody settles the call ('': nothing is noted)
-- Reply    of each call, in a list where there are several; packed: places of REPLY in `layouts.py`; then what an operator
--          set and, after a line break, who has told of the hold. quiet_us: a process with many waiting calls that has not
--          asked for so long had better ask
-- Codes    1 send after wait_us;  2 ask again after wait_us;  0 too late: the slot would be in wait_us, ticket dropped; with
--          a patience: why (cause), and the next try is due in wait_us
local QUEUE_MS = 600000
-- ARGV of a call.
local EACH = 5
local candidates = #KEYS / KEYS_OF_ONE
-- The state of each candidate, and whether it is to be written.
local states, changed = {}, {}
-- How the call that asks stands with the candidate that was chosen.
local at, base, state, terms, need, slot, order, queue, due, bots, noted_usd_micros

-- What stands among the facts of a candidate.
local function facts_of(c)
  local known = facts[c]
  if known and known.uses[kind] ~= nil then return known.set, known.learnt, known.uses[kind] end
  local set, learnt, use, beside = unpack(call('HMGET', KEYS[(c - 1) * KEYS_OF_ONE + FACTS], 'set', 'taught', kind, 'beside'))
  known = known or { set = set, learnt = learnt, uses = {}, beside = beside }
  facts[c], known.uses[kind] = known, use
  return set, learnt, use
end

local function state_of(c)
  if not states[c] then states[c] = read_state(KEYS[(c - 1) * KEYS_OF_ONE + STATE], facts[c].beside) end
  return states[c]
end

-- Have the state of a candidate written when all have asked.
local function keep_state(c, state)
  states[c], changed[c], state.dirty = state, true, nil
end

-- How the call stands with candidate c.
local function survey(c)
  local base = (c - 1) * KEYS_OF_ONE
  local queue, due = KEYS[base + QUEUE], KEYS[base + DUE]
  local set, learnt, use = facts_of(c)
  local state = state_of(c)
  if state[SWEEP_AT] < 0 then  -- the clock was set back: pace holds, the window begins anew, calls in flight are forgotten
    call('DEL', KEYS[base + LOG], KEYS[base + LEASES])
    for k = 1, 4 do state[WINDOW + k] = 0 end
  end
  local packed = candidates == 1 and ARGV[TERMS] or string.sub(ARGV[TERMS], (c - 1) * TERMS_BYTES + 1, c * TERMS_BYTES)
  local terms, need = read_terms(packed, set, learnt), needed(use)
  keep_calm(state, terms)
  local slot, interval = find_slot(state, terms, need)
  local blocked = false
  if terms[WINDOW_US] > 0 then
    local opens
    opens, blocked = window_opens(state, terms, need, KEYS[base + LOG])
    if opens > now then slot = max(slot, opens) end
  end
  local midnight, cost, used_up = day_limits(state, terms, use)
  local is_full, is_beyond
  slot, interval, is_full, is_beyond = other_limits(state, terms, KEYS[base + LEASES], slot, interval, midnight, used_up)
  if now >= state[SWEEP_AT] then sweep(state, queue, due) end
  if state.dirty and candidates > 1 then keep_state(c, state) end  -- it may not be the chosen one
  local order, fresh, rank, waits = place(c, state, queue, KEYS[base + BOTS])
  local horizon, ahead_us, has_credit = look_ahead(state, queue, rank, slot, interval)
  local in_turn = slot + rank * interval - now <= horizon
  return {
    c = c, base = base, set = set or '', state = state, terms = terms, need = need, slot = slot, interval = interval,
    order = order, rank = rank, waits = waits, fresh = fresh, horizon = horizon, est = slot + ahead_us,
    cost = cost, used_up = used_up, use = use, is_beyond = is_beyond,
    by_credit = has_credit and not in_turn,
    -- The burst is full and slots are being lost: whoever is ahead sleeps too long, so whoever asks may go.
    may_go = not blocked and not is_full and (in_turn or has_credit or now - slot >= terms[BURST_US]),
  }
end

-- Charge the call, which goes at `send`, on all that counts it.
local function commit(at, send)
  local state, terms, need, newest = at.state, at.terms, at.need, weight_of_newest(at.state)
  local is_window, shared = terms[WINDOW_US] > 0, 1 - NEWEST_GRANT
  for k = 1, 4 do
    if terms[k] > 0 then state[CLOCK + k] = max(send, state[CLOCK + k]) + ceil(need[k] * MINUTE_US / terms[k]) end
    if k > REQUESTS then state[MEAN + k] = state[MEAN + k] + (need[k] - state[MEAN + k]) * newest end
    if priority < k then
      state[URGENT_SHARE + k] = state[URGENT_SHARE + k] * shared + NEWEST_GRANT
      state[CREDIT + k] = min(MOST_CREDIT, state[CREDIT + k] + 1 / LEAVE)
    else
      state[URGENT_SHARE + k] = state[URGENT_SHARE + k] * shared
    end
    if is_window then state[WINDOW + k] = state[WINDOW + k] + need[k] end
  end
  if at.by_credit then state[CREDIT + priority] = state[CREDIT + priority] - 1 end
  state[VIRTUAL_TIME] = max(state[VIRTUAL_TIME], at.order % CLASS)
  state[GRANTED], state[GRANTED_TOKENS] = state[GRANTED] + 1, state[GRANTED_TOKENS] + need[TOKENS]
  state[DAY_REQUESTS], state[DAY_USD_MICROS] = state[DAY_REQUESTS] + 1, state[DAY_USD_MICROS] + at.cost
  state[DAY_RESERVED] = state[DAY_RESERVED] + at.cost
  reserve_at(state)
  keep_state(at.c, state)
end

-- Choose the candidate that can go soonest.
local function choose()
  at = survey(1)
  for c = 2, candidates do
    local other = survey(c)
    if other.may_go == at.may_go and other.est < at.est or other.may_go and not at.may_go then at = other end
  end
  if candidates > 1 and asked_order >= 0 and asked_candidate ~= at.c then  -- a ticket waits in one order only
    local other = (asked_candidate - 1) * KEYS_OF_ONE
    call('ZREM', KEYS[other + QUEUE], id)
    call('ZREM', KEYS[other + DUE], id)
  end
  base, state, terms, need, slot, order = at.base, at.state, at.terms, at.need, at.slot, at.order
  queue, due, bots, noted_usd_micros = KEYS[base + QUEUE], KEYS[base + DUE], KEYS[base + BOTS], 0
end

-- How much of the day is used, in thousandths, whatever of it is used most; what is only reserved may come back.
local function used_of_day()
  local requests, money = terms[REQUESTS_A_DAY], terms[USD_MICROS_A_DAY]
  local of_requests = requests > 0 and state[DAY_REQUESTS] / requests or 0
  return floor(1000 * max(of_requests, money > 0 and (state[DAY_USD_MICROS] - state[DAY_RESERVED]) / money or 0))
end

local function answer(code, wait, backlog, why)
  -- Slots that would soon be lost, for whoever asks: told only when a quarter of the burst is unused, else all would poll.
  local unused = now - slot - terms[BURST_US] / 4
  local idle = unused >= 0 and at.interval > 0 and floor(unused / at.interval) + 1 or 0
  local held_us, quiet_us = state[HELD_UNTIL] > now and state[HELD_UNTIL] or 0, floor(max(LONG_US, at.interval) / 3)
  local wait_us, backlog_us, horizon_us = ceil(wait), ceil(backlog), floor(at.horizon)
  local now_us, candidate, granted, granted_tokens = now, at.c, state[GRANTED], state[GRANTED_TOKENS]
  local tokens, input_tokens, output_tokens = need[TOKENS], need[INPUT], need[OUTPUT]
  local day_used, cost_usd_micros, day_usd_micros = used_of_day(), at.cost, terms[USD_MICROS_A_DAY]
  local cause, is_own, lowest, is_beyond = 0, 0, -1, at.is_beyond
  if why then cause, is_own, lowest = why.cause, why.is_own and 1 or 0, why.lowest or -1 end
  return struct.pack(REPLY_FORMAT, code, wait_us, order, now_us, held_us, idle, backlog_us, candidate, quiet_us, tokens,
    input_tokens, output_tokens, granted, granted_tokens, horizon_us, cause, is_own, lowest, day_used, is_beyond,
    cost_usd_micros, day_usd_micros, noted_usd_micros) .. at.set
end

-- When to try again where the day has no room, and why. What is reserved of its money comes back as
-- calls in flight are answered; a reservation that is older than any call belongs to a dead process.
local function day_is_full()
  local is_bulk, opens = terms[STOPS_BULK] > 0 and priority > LOWEST_ON_RESERVE, slot
  local lowest = is_bulk and LOWEST_ON_RESERVE or -1
  if at.used_up == BY_REQUESTS then return opens, { cause = BY_REQUESTS, lowest = lowest } end
  local most, used = terms[USD_MICROS_A_DAY] * (is_bulk and FULL_SHARE or 1), state[DAY_USD_MICROS]
  if used - state[DAY_RESERVED] + at.cost <= most and now - state[RESERVED_AT] < lease_us then opens = now + RETURNS_US end
  local mean = state[DAY_REQUESTS] > 0 and used / state[DAY_REQUESTS] or 0
  local is_own = at.cost > terms[USD_MICROS_A_DAY] or mean > 0 and most - used >= mean
  return opens, { cause = BY_MONEY, is_own = is_own, lowest = lowest }
end

-- Say why the call does not go soon. Who is next asks again before its turn, for it sleeps until then in its slot.
local function not_soon(turn)
  local held_until = state[HELD_UNTIL]
  if held_until > now and (held_until >= slot or at.used_up == 0 and held_until - now > patience_us) then
    local told = call('HGET', KEYS[base + FACTS], 'held_by')
    return answer(0, held_until - now, at.est - now, { cause = BY_HOLD }) .. (told and '\n' .. told or '')
  end
  if at.used_up > 0 then
    local opens, why = day_is_full()
    if not why.is_own then  -- all that waits would find the burst of an idle limit as the day gets room
      state[CALM_AT] = now
      keep_state(at.c, state)
    end
    return answer(0, opens - now, at.est - now, why)
  end
  local is_next, wait = slot - now > patience_us, max(MIN_SLEEP_US, turn - now - patience_us * EARLY_PATIENCE)
  local is_own = not is_next and by_tenant == 1 and order % CLASS > state[VIRTUAL_TIME]  -- has had more than others
  return answer(0, wait, at.est - now, { cause = BY_LIMIT, is_own = is_own, lowest = is_next and -1 or priority - 1 })
end

local function leave_queue()
  if at.waits then
    call('ZREM', queue, id)
    call('ZREM', due, id)
  end
end

-- Write the finish tags that were kept of a candidate.
local function write_tags(c, known)
  if not known.new_tags then return end
  local key, written = KEYS[(c - 1) * KEYS_OF_ONE + BOTS], {}
  for bot, tag in pairs(known.new_tags) do written[#written + 1], written[#written + 2] = whole(tag), bot end
  known.new_tags = nil
  if call('ZADD', key, unpack(written)) > 0 or now % NOW_AND_THEN == 1 then call('PEXPIRE', key, KEEP_MS) end
end

-- Take a place in the fair order.
local function line_up()
  if priority < 4 and now / 1000 - state[ASKED_MS + priority] > NOTED_EVERY_MS then
    state[ASKED_MS + priority], state.dirty = floor(now / 1000), true
  end
  if not at.fresh then return end
  local price = charge > 0 and charge or max(1, need[TOKENS]) / weight
  if by_tenant == 1 then write_tags(at.c, facts[at.c]) end  -- they are counted next
  if by_tenant == 1 then price = price * max(1, call('ZCOUNT', bots, '(' .. whole(state[VIRTUAL_TIME]), '+inf')) end
  local tag, known = order % CLASS + price, facts[at.c]
  if callers and by_tenant == 0 then
    known.tags[caller] = tonumber(whole(tag))
    known.new_tags = known.new_tags or {}
    known.new_tags[caller] = known.tags[caller]
    return
  end
  if callers then known.tags[caller] = tonumber(whole(tag)) end
  local is_new = call('ZADD', bots, whole(tag), caller)
  if is_new == 1 or now % NOW_AND_THEN == 1 then call('PEXPIRE', bots, KEEP_MS) end
end

-- Wait in the order; the answer is when to ask again.
local function wait_in_line()
  local wait = at.est - now - max(at.horizon, (at.est - now) * FAR_SHARE) * (EARLY_SHARE + EARLY_SPREAD * random)
  wait = max(wait, MIN_SLEEP_US + random * at.horizon * SLEEP_SPREAD)
  wait = min(wait, MAX_SLEEP_US * (1 + random), max_wait_us)
  if not at.waits then call('ZADD', queue, whole(order), id) end
  facts[at.c].is_free = false
  call('ZADD', due, whole(now + wait), id)
  if at.rank == 0 or now % NOW_AND_THEN == 0 then  -- the first one made the keys
    call('PEXPIRE', queue, QUEUE_MS)
    call('PEXPIRE', due, QUEUE_MS)
  end
  if state.dirty then keep_state(at.c, state) end
  return answer(2, wait, at.est - now)
end

-- Note what the bill enters if nobody settles the call.
local function note_down(send)
  noted_usd_micros = cost_of(at.use, NOTED_DEVIATIONS)
  local known = facts[at.c]
  local notes = known.notes or {}
  notes[#notes + 1], notes[#notes + 2] = id, format('%d %.6f ', send, noted_usd_micros) .. note
  known.notes, known.is_due = notes, known.is_due or floor(now / NOTED_US) ~= floor(state[RESERVED_AT] / NOTED_US)
end

local function grant()
  local send = max(now, slot)
  if note ~= '' then note_down(send) end
  commit(at, send)
  leave_queue()
  if terms[WINDOW_US] > 0 then
    call('ZADD', KEYS[base + LOG], whole(send), format('%s:%d:%d:%d', id, need[TOKENS], need[INPUT], need[OUTPUT]))
    call('PEXPIRE', KEYS[base + LOG], KEEP_MS)
  end
  if terms[IN_FLIGHT] > 0 then
    call('ZADD', KEYS[base + LEASES], whole(send + lease_us), id)
    call('PEXPIRE', KEYS[base + LEASES], KEEP_MS)
  end
  if now % NOW_AND_THEN == 0 then call('ZREMRANGEBYSCORE', bots, '-inf', whole(state[VIRTUAL_TIME])) end
  return answer(1, send - now, send - now)
end

local function ask()
  choose()
  local turn = at.may_go and slot or max(at.est, slot)
  local is_impatient = patience_us >= 0 and turn - now > patience_us * (at.fresh and 1 or HOPELESS)
  if is_impatient or max(slot - now, 0) > max_wait_us
      or not at.may_go and at.est - now > HOPELESS * max_wait_us + at.horizon then
    leave_queue()
    if state.dirty then keep_state(at.c, state) end
    if patience_us >= 0 then return not_soon(turn) end
    return answer(0, max(at.est, slot) - now, at.est - now)
  end
  line_up()
  return at.may_go and grant() or wait_in_line()
end

-- Write what was kept of a candidate until all have asked.
local function write_kept(c, known)
  local first = (c - 1) * KEYS_OF_ONE
  if known.notes then
    call('HSET', KEYS[first + OPEN], unpack(known.notes))
    if known.is_due or call('HLEN', KEYS[first + OPEN]) * 2 == #known.notes then
      call('PEXPIRE', KEYS[first + OPEN], KEEP_MS)  -- these made the key
    end
  end
  write_tags(c, known)
  if changed[c] then write_state(KEYS[first + STATE], KEYS[first + FACTS], states[c]) end
end

local replies = {}
if #ARGV > CALLS + EACH then
  callers = {}
  for i = CALLS + 1, #ARGV, EACH do callers[#callers + 1] = ARGV[i + 1] end
end
for i = CALLS + 1, #ARGV, EACH do
  id, caller, kind, note = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  priority, asked_order, asked_candidate, charge, weight, by_tenant, tokens, input, output, usd_micros, max_wait_us,
    random, lease_us, patience_us, beyond = struct.unpack(ASKED_FORMAT, ARGV[i + 3])
  replies[#replies + 1] = ask()
end
for c, known in pairs(facts) do write_kept(c, known) end
return #replies == 1 and replies[1] or replies
