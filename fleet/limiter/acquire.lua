-- Ask for one call: the answer is a time to send, or a time to ask again, or that it is too late.
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
-- ARGV     ticket
--          bot            '': all callers without a name are one
--          kind           field of the facts with what its kind of call uses
--          asked          packed: the numbers of the question; places: `layouts.py`
--          note           what the bill enters if nobody settles the call; '': nothing is noted
--          terms          of each candidate, packed
-- Reply    packed: places of REPLY in `layouts.py`;  then what an operator set and, after a line break, who has told of the
--          hold. quiet_us: a process with many waiting calls that has not asked for so long had better ask
-- Codes    1 send after wait_us;  2 ask again after wait_us;  0 too late: the slot would be in wait_us, ticket dropped; with
--          a patience: why (cause), and the next try is due in wait_us
local QUEUE_MS = 600000
local PROCESS, ENTRY = '%-(.+)%-', '^[^:]*:(%d+):(%d+):(%d+)$'
local id = ARGV[TICKET]
local priority, asked_order, asked_candidate, charge, weight, by_tenant, tokens, input, output, usd_micros, max_wait_us,
  random, lease_us, patience_us, beyond = struct.unpack(ASKED_FORMAT, ARGV[ASKED])

-- What the call is charged, by rate: what calls of its kind mostly use.
local function needed(use)
  local need = { 1, tokens, input, output }
  if use then
    local mean, deviation, out_mean, out_deviation = match(use, '(%S+) (%S+) (%S+) (%S+)')
    need[OUTPUT] = ceil(output * min(MOST_SHARE, out_mean + out_deviation))
    -- The share of long answers says nothing of a long prompt, which is known.
    need[TOKENS] = max(ceil(tokens * min(MOST_SHARE, mean + deviation)), input + need[OUTPUT])
  end
  return need
end

-- When no clock is further ahead than its burst, and the time between two calls. The slot may lie in the past, at most a
-- burst: capacity left over.
local function find_slot(state, terms, need)
  local least_burst = terms[BURST_US]
  local slot, interval = now - least_burst, 0
  for k = 1, 4 do
    local rate = terms[k]
    if rate > 0 then
      local us, burst = MINUTE_US / rate, least_burst
      if k == REQUESTS then
        if us > burst then burst = us end
        if us > interval then interval = us end
      else
        local mean = state[MEAN + k]
        interval = max(interval, (mean > 0 and mean or need[k]) * us)
      end
      slot = max(slot, state[CLOCK + k] + min(ceil(need[k] * us), burst) - burst)
    end
  end
  if state[HELD_UNTIL] > slot then slot = state[HELD_UNTIL] end
  return slot, interval
end

-- Return when the window has room for `need`, and whether that is not known yet. Drops what is no longer counted; looks
-- at no more than LOG_STEPS entries.
local function window_opens(state, terms, need, log)
  local kept_us, most, opens = terms[WINDOW_US] + terms[MARGIN_US], {}, now
  for k = 1, 4 do
    local limit = max(1, floor(terms[k] * terms[WINDOW_US] / MINUTE_US - (terms[OTHERS + k] or 0)))
    most[k] = terms[k] > 0 and limit - min(need[k], limit) or math.huge
  end
  local r, t, i, o = state[WINDOW + REQUESTS], state[WINDOW + TOKENS], state[WINDOW + INPUT], state[WINDOW + OUTPUT]
  local most_r, most_t, most_i, most_o = unpack(most)
  local over = r > most_r or t > most_t or i > most_i or o > most_o
  local first, dropped = (over or now >= state[SWEEP_AT]) and 0 or LOG_STEPS, 0
  while first < LOG_STEPS do
    local entries = call('ZRANGE', log, first, first + 7, 'WITHSCORES')
    first = #entries == 16 and first + 8 or LOG_STEPS
    for e = 1, #entries, 2 do
      local leaves, et, ei, eo = entries[e + 1] + kept_us, match(entries[e], ENTRY)
      if leaves > now then
        if not over then first = LOG_STEPS break end
        opens = leaves
      end
      r, t, i, o = r - 1, t - et, i - ei, o - eo
      over = r > most_r or t > most_t or i > most_i or o > most_o
      if leaves <= now then
        dropped, state.dirty = dropped + 1, true
        state[WINDOW + REQUESTS], state[WINDOW + TOKENS], state[WINDOW + INPUT], state[WINDOW + OUTPUT] = r, t, i, o
      end
    end
  end
  if dropped > 0 then call('ZREMRANGEBYRANK', log, 0, dropped - 1) end
  return opens, over
end

-- What the call is charged of the day's money: what calls of its kind mostly cost of the most that they may.
local function cost_of(use, deviations)
  local mean, deviation = match(use or '', '%S+ %S+ %S+ %S+ (%S+) (%S+)')
  return mean and usd_micros * min(1, mean + deviations * deviation) or usd_micros
end

-- Return the midnight that ends the day (0: no day is limited), what the call is charged of its money, and what of it is
-- used up (0: nothing).
local function day_limits(state, terms, use)
  local requests, money = terms[REQUESTS_A_DAY], terms[USD_MICROS_A_DAY]
  if requests <= 0 and money <= 0 then return 0, usd_micros, 0 end
  local today, cost, used_up = floor(now / DAY_US), money > 0 and cost_of(use, 1) or usd_micros, 0
  if state[DAY] ~= today then
    state[DAY], state[DAY_REQUESTS], state[DAY_USD_MICROS], state[DAY_RESERVED] = today, 0, 0, 0
  end
  local share = terms[STOPS_BULK] > 0 and priority > LOWEST_ON_RESERVE and FULL_SHARE or 1
  if money > 0 and state[DAY_USD_MICROS] + cost > money * share then used_up = BY_MONEY end
  if requests > 0 and state[DAY_REQUESTS] + 1 > requests * share then used_up = BY_REQUESTS end
  return (today + 1) * DAY_US, cost, used_up
end

-- Return the slot and the interval under what limits calls in flight and the day, and whether none may be sent now.
local function other_limits(state, terms, leases, slot, interval, midnight, used_up)
  local most, is_full, is_beyond = terms[IN_FLIGHT], false, 0
  if most > 0 then
    local flight = (state[MEAN_FLIGHT_US] > 0 and state[MEAN_FLIGHT_US] or FIRST_FLIGHT_US) / most
    interval = max(interval, flight)
    if call('ZCARD', leases) >= most then
      call('ZREMRANGEBYSCORE', leases, '-inf', whole(now))
      local flying = call('ZCARD', leases)
      is_full = flying >= most + beyond  -- a probe has a place of its own: those under way may all hang
      if flying >= most and not is_full then is_beyond = 1 end
    end
    if is_full then slot = max(slot, now + flight) end
  end
  if used_up > 0 then slot = max(slot, midnight) end
  if midnight > 0 and slot >= midnight then is_full = true end  -- tomorrow's calls are counted tomorrow
  return slot, interval, is_full, is_beyond
end

-- Drop tickets whose caller did not come back, and those of its process: they would hold their places, and lengthen the
-- estimates of all, until each should have asked. Where nobody has asked for a while, to be late says little of a process.
local function sweep(state, queue, due)
  local others_asked = now - state[SWEEP_AT] < GRACE_US
  local dead, of_dead = call('ZRANGEBYSCORE', due, '-inf', whole(now - GRACE_US), 'LIMIT', 0, DEAD_STEPS), {}
  if #dead < DEAD_STEPS then state[SWEEP_AT] = now + SWEEP_US end
  state.dirty = true
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

-- The place of the call among the tickets of candidate c: order, whether it is new, rank, whether it waits there.
local function place(c, state, queue, bots)
  if asked_order >= 0 and asked_candidate == c then
    local rank = call('ZRANK', queue, id)
    return asked_order, false, rank or call('ZCOUNT', queue, '-inf', whole(asked_order)), rank and true
  end
  local order = priority * CLASS + max(state[VIRTUAL_TIME], tonumber(call('ZSCORE', bots, ARGV[BOT]) or 0))
  return order, true, call('ZCOUNT', queue, '-inf', whole(order)), false
end

-- How far ahead slots are committed, when the turn of `rank` is likely, and whether it comes by credit. With more urgent
-- calls about, most slots go to those, and credit against them lets one of ours through.
local function look_ahead(state, queue, rank, slot, interval)
  local horizon, ahead_us, urgent = max(LONG_US, interval), rank * interval, 0
  for class = 0, priority - 1 do urgent = max(urgent, state[ASKED_MS + class]) end
  if urgent <= 0 or now / 1000 - urgent >= URGENT_MEMORY_MS then return horizon, ahead_us, false end
  local credit, own = state[CREDIT + priority], rank
  if rank > 0 then own = rank - call('ZCOUNT', queue, '-inf', '(' .. whole(priority * CLASS)) end
  local by_order = rank - own + own / max(1 - state[URGENT_SHARE + priority], 1 / (1 + LEAVE))
  ahead_us = min(by_order, max(0, own + 1 - credit) * (1 + LEAVE)) * interval
  return max(SHORT_US, interval / 2), ahead_us, credit >= own + 1 and slot - now <= horizon
end

-- How the call stands with candidate c.
local function survey(c)
  local base = (c - 1) * KEYS_OF_ONE
  local queue, due = KEYS[base + QUEUE], KEYS[base + DUE]
  local set, learnt, use = unpack(call('HMGET', KEYS[base + FACTS], 'set', 'learnt', ARGV[KIND]))
  local state = read_state(KEYS[base + STATE])
  if state[SWEEP_AT] < 0 then  -- the clock was set back: pace holds, the window begins anew, calls in flight are forgotten
    call('DEL', KEYS[base + LOG], KEYS[base + LEASES])
    for k = 1, 4 do state[WINDOW + k] = 0 end
  end
  local terms, need = read_terms(ARGV[TERMS + c], set, learnt), needed(use)
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
  if state.dirty and #ARGV > TERMS + 1 then write_state(KEYS[base + STATE], state) end  -- it may not be the chosen one
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
  state[DAY_RESERVED], state[RESERVED_AT] = state[DAY_RESERVED] + at.cost, now
  write_state(KEYS[at.base + STATE], state)
end

local at = survey(1)
if #ARGV > TERMS + 1 then
  for c = 2, #ARGV - TERMS do
    local other = survey(c)
    if other.may_go == at.may_go and other.est < at.est or other.may_go and not at.may_go then at = other end
  end
  if asked_order >= 0 and asked_candidate ~= at.c then  -- a ticket waits in one order only
    local base = (asked_candidate - 1) * KEYS_OF_ONE
    call('ZREM', KEYS[base + QUEUE], id)
    call('ZREM', KEYS[base + DUE], id)
  end
end
local base, state, terms, need, slot, order = at.base, at.state, at.terms, at.need, at.slot, at.order
local queue, due, bots = KEYS[base + QUEUE], KEYS[base + DUE], KEYS[base + BOTS]

-- How much of the day is used, in thousandths, whatever of it is used most; what is only reserved may come back.
local function used_of_day()
  local requests, money = terms[REQUESTS_A_DAY], terms[USD_MICROS_A_DAY]
  local of_requests = requests > 0 and state[DAY_REQUESTS] / requests or 0
  return floor(1000 * max(of_requests, money > 0 and (state[DAY_USD_MICROS] - state[DAY_RESERVED]) / money or 0))
end

local noted_usd_micros = 0
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
      write_state(KEYS[base + STATE], state)
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

local turn = at.may_go and slot or max(at.est, slot)
local is_impatient = patience_us >= 0 and turn - now > patience_us * (at.fresh and 1 or HOPELESS)
if is_impatient or max(slot - now, 0) > max_wait_us
    or not at.may_go and at.est - now > HOPELESS * max_wait_us + at.horizon then
  leave_queue()
  if state.dirty then write_state(KEYS[base + STATE], state) end
  if patience_us >= 0 then return not_soon(turn) end
  return answer(0, max(at.est, slot) - now, at.est - now)
end

if priority < 4 and now / 1000 - state[ASKED_MS + priority] > NOTED_EVERY_MS then
  state[ASKED_MS + priority], state.dirty = floor(now / 1000), true
end
if at.fresh then
  local price = charge > 0 and charge or max(1, need[TOKENS]) / weight
  if by_tenant == 1 then price = price * max(1, call('ZCOUNT', bots, '(' .. whole(state[VIRTUAL_TIME]), '+inf')) end
  local is_new = call('ZADD', bots, whole(order % CLASS + price), ARGV[BOT])
  if is_new == 1 or now % NOW_AND_THEN == 1 then call('PEXPIRE', bots, KEEP_MS) end
end

if not at.may_go then
  local wait = at.est - now - max(at.horizon, (at.est - now) * FAR_SHARE) * (EARLY_SHARE + EARLY_SPREAD * random)
  wait = max(wait, MIN_SLEEP_US + random * at.horizon * SLEEP_SPREAD)
  wait = min(wait, MAX_SLEEP_US * (1 + random), max_wait_us)
  if not at.waits then call('ZADD', queue, whole(order), id) end
  call('ZADD', due, whole(now + wait), id)
  if at.rank == 0 or now % NOW_AND_THEN == 0 then  -- the first one made the keys
    call('PEXPIRE', queue, QUEUE_MS)
    call('PEXPIRE', due, QUEUE_MS)
  end
  if state.dirty then write_state(KEYS[base + STATE], state) end
  return answer(2, wait, at.est - now)
end

local send = max(now, slot)
if ARGV[NOTE] ~= '' then
  noted_usd_micros = cost_of(at.use, NOTED_DEVIATIONS)
  call('HSET', KEYS[base + OPEN], id, format('%d %.6f ', send, noted_usd_micros) .. ARGV[NOTE])
  if floor(now / NOTED_US) ~= floor(state[RESERVED_AT] / NOTED_US) or call('HLEN', KEYS[base + OPEN]) == 1 then
    call('PEXPIRE', KEYS[base + OPEN], KEEP_MS)  -- the first one made the key
  end
end
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
