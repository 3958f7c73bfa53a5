-- How a call stands with a limit, as `acquire.lua` asks: lines that stand before it. KEYS, ARGV and reply are its own.
local PROCESS, ENTRY = '%-(.+)%-', '^[^:]*:(%d+):(%d+):(%d+)$'
-- What was read of each candidate, and what is kept until all have asked: `set`, `learnt`, uses by kind; where several ask,
-- finish tags by bot, those that are new, whether nobody waits, and notes for the bill.
local facts = {}
-- The bots of all who ask, where there are several.
local callers
-- The call that asks.
local id, caller, kind, note
local priority, asked_order, asked_candidate, charge, weight, by_tenant, tokens, input, output, usd_micros, max_wait_us,
  random, lease_us, patience_us, beyond

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

-- The finish tag of the bot that asks: of several they are all read at once.
local function tag_of(c, bots)
  if not callers then return tonumber(call('ZSCORE', bots, caller) or 0) end
  local known = facts[c]
  if not known.tags then
    known.tags = {}
    for k, tag in ipairs(call('ZMSCORE', bots, unpack(callers))) do known.tags[callers[k]] = tonumber(tag or 0) end
  end
  return known.tags[caller]
end

-- True when nobody waits, as was seen for one of several that ask; false: count.
local function is_free(c, queue)
  if not callers then return false end
  local known = facts[c]
  if known.is_free == nil then known.is_free = call('ZCARD', queue) == 0 end
  return known.is_free
end

-- The place of the call among the tickets of candidate c: order, whether it is new, rank, whether it waits there.
local function place(c, state, queue, bots)
  if asked_order >= 0 and asked_candidate == c then
    local rank = call('ZRANK', queue, id)
    return asked_order, false, rank or call('ZCOUNT', queue, '-inf', whole(asked_order)), rank and true
  end
  local order = priority * CLASS + max(state[VIRTUAL_TIME], tag_of(c, bots))
  return order, true, is_free(c, queue) and 0 or call('ZCOUNT', queue, '-inf', whole(order)), false
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
