-- Adds one finished task to the moving windows: seven commands in most calls, whatever their size, and two more for a
-- pool with a fallback ladder. O(1).
-- A function inside the finishing script, so windows never disagree with results. Places and rings: `windows.py`.
--
-- A period whose minute is over is added to its hour when it is written anew: so hours cost nothing per task.
--
-- KEYS  series       string: a ring of minutes, then a ring of hours, packed               TTL of all: life_s
--       rows         string: a packed row per bot of the pool
--       tasks        string: the last tasks of each bot, packed
--       sketch       string: a ring of sketches: number, then three times BUCKETS counters, u32; behind it who of the
--                    pool's fallback ladder serves, packed
--       recent       string: a ring of the pool's last completions, packed
--       failures     list: the pool's last failures, "time|JSON", the newest first
--       events       stream: what happened to the fleet, about 1,000 entries
-- ARGV  now_us       Redis time; or what finish_together.lua keeps
--       nth          number of this completion in the pool (0: the result was discarded, only what it cost counts)
--       sample       packed: what is known of the task
--       shown_id     task id, cut
--       line         line for failures ('': it did not fail)
--       dead_reason  reason of its dead letter ('': none)
--       life_s       life of the keys, s
--       pool         its name
--       dead_letter  name of the event of a dead letter
--       others       packed shares of other bots that have worked on it, one after the other
--       most         completions and failures that are remembered
-- Reply 1 when this is the pool's first in this minute, else 0
local MOST_EVENTS = 1000
-- Parts of a micro-dollar that are counted, and sums of micro-dollars below which each of them is a double's own.
local PICOS, EXACT_MICROS = 1000000, 1000000000
local series, rows, tasks, sketch, recent, failures, events = unpack(KEYS)
local now_us, nth, sample, shown_id, line, dead_reason, life_s, pool, dead_letter, others, most = unpack(ARGV)
most = tonumber(most)
local kept = type(now_us) == 'table' and now_us
if kept then now_us = kept.now_us end
local task = { struct.unpack(SAMPLE_FORMAT, sample) }
local stands = tonumber(nth) > 0

local now = now_us / 1000000
local now_s = math.floor(now)

-- The bytes of one place in a string of them, or nil when it was never written.
local function read(key, at, bytes)
  local raw = redis.call('GETRANGE', key, at, at + bytes - 1)
  return #raw == bytes and raw or nil
end

-- A sum of micro-dollars and one more, on the nearest pico: exact below EXACT_MICROS, as any other double above.
local function paid_in_all(sum, more)
  sum = sum + more
  return sum < EXACT_MICROS and math.floor(sum * PICOS + 0.5) / PICOS or sum
end

-- Add the task to its minute; a result that was discarded cost something all the same.
local function count(period)
  period[INPUT_TOKENS] = period[INPUT_TOKENS] + task[INPUT_TOKENS]
  period[OUTPUT_TOKENS] = period[OUTPUT_TOKENS] + task[OUTPUT_TOKENS]
  period[COST_USD_MICROS] = paid_in_all(period[COST_USD_MICROS], task[COST_USD_MICROS])
  period[CALLS] = period[CALLS] + task[CALLS]
  period[CALLS_FAILED] = period[CALLS_FAILED] + task[CALLS_FAILED]
  period[RATE_LIMITED] = period[RATE_LIMITED] + task[RATE_LIMITED]
  if not stands then
    period[DISCARDED] = period[DISCARDED] + 1
    return
  end
  period[COMPLETIONS] = period[COMPLETIONS] + 1
  period[OK + task[STATUS]] = period[OK + task[STATUS]] + 1  -- ok, degraded and failed follow each other
  period[QUEUED_MS] = period[QUEUED_MS] + task[QUEUED_MS]
  period[LIMITED_MS] = period[LIMITED_MS] + task[LIMITED_MS]
  period[RAN_MS] = period[RAN_MS] + task[RAN_MS]
  if dead_reason ~= '' then
    period[DEAD_LETTERS] = period[DEAD_LETTERS] + 1
    if period[DEAD_LETTERS] == 1 then  -- one event a minute: an outage must not push everything else out
      redis.call('XADD', events, 'MAXLEN', '~', MOST_EVENTS, '*', 'event', dead_letter, 'pool', pool,
        'reason', dead_reason, 'task', shown_id)
      redis.call('EXPIRE', events, life_s)
    end
  end
end

local function read_row(number)
  local raw = read(rows, number * ROW_BYTES, ROW_BYTES)
  return raw and { struct.unpack(ROW_FORMAT, raw) } or { ROW_ZEROS }
end

local function write_row(number, row)
  redis.call('SETRANGE', rows, number * ROW_BYTES, struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)))
end

-- Add to the row of each bot what it used itself; return the row of the one that finished the task.
local function count_bots()
  local failed, paid, used = task[CALLS_FAILED], task[COST_USD_MICROS], task[INPUT_TOKENS] + task[OUTPUT_TOKENS]
  local ms = task[RAN_MS]
  for at = 1, #others, SHARE_BYTES do
    local bot, calls_failed, cost_usd_micros, tokens, ran_ms = struct.unpack(SHARE_FORMAT, others, at)
    local row = read_row(bot)
    row[CALLS_FAILED], row[TOKENS] = row[CALLS_FAILED] + calls_failed, row[TOKENS] + tokens
    row[COST_USD_MICROS] = paid_in_all(row[COST_USD_MICROS], cost_usd_micros)
    row[RAN_MS] = row[RAN_MS] + (stands and ran_ms or 0)
    write_row(bot, row)
    failed, paid, used, ms = failed - calls_failed, paid_in_all(paid, -cost_usd_micros), used - tokens, ms - ran_ms
  end
  local row = read_row(task[BOT])
  row[CALLS_FAILED], row[TOKENS] = row[CALLS_FAILED] + failed, row[TOKENS] + used
  row[COST_USD_MICROS] = paid_in_all(row[COST_USD_MICROS], paid)
  if stands then
    local hour = math.floor(now_s / 3600)
    if row[HOUR] ~= hour then
      row[LAST_HOUR] = row[HOUR] == hour - 1 and row[THIS_HOUR] or 0
      row[HOUR], row[THIS_HOUR] = hour, 0
    end
    row[COMPLETIONS], row[THIS_HOUR] = row[COMPLETIONS] + 1, row[THIS_HOUR] + 1
    row[FAILED] = row[FAILED] + (task[STATUS] == FAILED_STATUS and 1 or 0)
    row[LAST_AT], row[RAN_MS] = math.floor(now * 1000) / 1000, row[RAN_MS] + math.max(0, ms)
  end
  write_row(task[BOT], row)
  return row
end

-- Puts a task among the pool's last ones; those of several tasks, behind the first, in one go.
local function keep_entry(entry)
  local entries = kept and kept.entries
  if not entries then
    redis.call('SETRANGE', recent, nth % most * ENTRY_BYTES, entry)
    if kept then kept.entries = {} end
    return
  end
  if #entries > 0 and (entries.first + #entries ~= nth or #entries == most) then kept.writes.entries() end
  if #entries == 0 then entries.first = nth end
  entries[#entries + 1] = entry
  kept.writes.entries = kept.writes.entries or function()
    local place = entries.first % most
    local till_end = math.min(#entries, most - place)
    redis.call('SETRANGE', recent, place * ENTRY_BYTES, table.concat(entries, '', 1, till_end))
    if till_end < #entries then redis.call('SETRANGE', recent, 0, table.concat(entries, '', till_end + 1)) end
    for k = #entries, 1, -1 do entries[k] = nil end
  end
end

-- Adds to the counters of durations; those of several tasks, behind the first, in one go.
local function count_durations(counters)
  local all = kept and kept.counters
  if not all then
    redis.call('BITFIELD', sketch, unpack(counters))
    if kept then kept.counters = {} end
    return
  end
  for _, part in ipairs(counters) do all[#all + 1] = part end
  kept.writes.counters = kept.writes.counters or function() redis.call('BITFIELD', sketch, unpack(all)) end
end

-- Remember the task among the last ones of its bot, of the pool, and of those that failed.
local function remember(row)
  local bot, status, queued_ms, ran_ms, at = task[BOT], task[STATUS], task[QUEUED_MS], task[RAN_MS], now_s
  if bot > 0 then
    local task_id = shown_id .. string.rep('\0', ID_BYTES - #shown_id)
    local last = struct.pack(LAST_FORMAT, task_id, at, ran_ms, status)
    redis.call('SETRANGE', tasks, (bot * TASKS_EACH + row[COMPLETIONS] % TASKS_EACH) * LAST_BYTES, last)
  end
  local pool, api, error = task[POOL], task[API], task[ERROR]
  at = now
  keep_entry(struct.pack(ENTRY_FORMAT, at, pool, api, error, bot, status, queued_ms, ran_ms))
  if line ~= '' then
    redis.call('LPUSH', failures, string.format('%.3f', now) .. '|' .. line)
    redis.call('LTRIM', failures, 0, most - 1)
    redis.call('EXPIRE', failures, life_s)
  end
end

-- Count the rung of its pool's ladder that answered the task, and note since when that one serves. A rung above it has to
-- be alone for a while: calls that began before a fall, and probes, end in between.
local function count_rung(rung)
  local at = SKETCHES * SKETCH_BYTES
  local raw = read(sketch, at, RUNGS_BYTES)
  local rungs = raw and { struct.unpack(RUNGS_FORMAT, raw) } or { RUNGS_ZEROS }
  local serving = rungs[LAST_AT] > 0 and rungs[SERVING] or -1
  if rung > serving or rung < serving and now - rungs[LAST_AT] >= BACK_AFTER_S then
    rungs[SERVING], rungs[SINCE], serving = rung, now, rung
  end
  if rung == serving then rungs[LAST_AT] = now end
  local number = math.floor(now_s / SKETCH_S)
  local slot = number % SKETCHES
  local first = slot * RUNGS_COUNTED
  if rungs[SLOT + slot] ~= number then
    rungs[SLOT + slot] = number
    for other = first, first + RUNGS_COUNTED - 1 do rungs[SERVED + other] = 0 end
  end
  local place = first + math.min(rung, RUNGS_COUNTED - 1)
  rungs[SERVED + place] = rungs[SERVED + place] + 1
  redis.call('SETRANGE', sketch, at, struct.pack(RUNGS_FORMAT, unpack(rungs, 1, RUNGS_PLACES)))
end

local minute = math.floor(now_s / 60)
local place = minute % MINUTES * PERIOD_BYTES
local raw = not (kept and kept.period) and read(series, place, PERIOD_BYTES)
local period = kept and kept.period or raw and { struct.unpack(PERIOD_FORMAT, raw) } or { PERIOD_ZEROS }
local is_new_minute = period[NUMBER] ~= minute
if is_new_minute then
  local over = math.floor(period[NUMBER] / 60)
  local hour_place = (MINUTES + over % HOURS) * PERIOD_BYTES
  raw = over > 0 and read(series, hour_place, PERIOD_BYTES)
  local sums = raw and { struct.unpack(PERIOD_FORMAT, raw) } or { PERIOD_ZEROS }
  if over > 0 and sums[NUMBER] <= over then  -- add the minute that is over to its hour
    local is_same = sums[NUMBER] == over
    for i = 1, PERIOD_PLACES do sums[i] = period[i] + (is_same and sums[i] or 0) end
    sums[NUMBER], sums[COST_USD_MICROS] = over, paid_in_all(sums[COST_USD_MICROS], 0)
    redis.call('SETRANGE', series, hour_place, struct.pack(PERIOD_FORMAT, unpack(sums, 1, PERIOD_PLACES)))
  end
  period = { PERIOD_ZEROS }
  period[NUMBER] = minute
end
count(period)
local function write_period()
  redis.call('SETRANGE', series, place, struct.pack(PERIOD_FORMAT, unpack(period, 1, PERIOD_PLACES)))
end
if kept and kept.period then kept.writes.period = write_period else write_period() end  -- the first one makes the key
if kept then kept.period = period end
local row = count_bots()
if stands then
  remember(row)
  local period = math.floor(now_s / SKETCH_S)
  local at = period % SKETCHES * SKETCH_BYTES
  if is_new_minute and redis.call('GETRANGE', sketch, at, at + 3) ~= struct.pack('>I4', period) then
    redis.call('SETRANGE', sketch, at, struct.pack('>I4', period) .. string.rep('\0', SKETCH_BYTES - 4))
  end
  local counters, first = {}, at / 4 + 1
  for part = 0, 2 do  -- queued, limited, ran
    local bucket, n = task[QUEUED_BUCKET + part], #counters
    if bucket >= 0 then
      counters[n + 1], counters[n + 2] = 'INCRBY', 'u32'
      counters[n + 3], counters[n + 4] = '#' .. string.format('%d', first + part * BUCKETS + bucket), 1
    end
  end
  if #counters > 0 then count_durations(counters) end
  if task[RUNG] >= 0 then count_rung(task[RUNG]) end
end
if is_new_minute or period[COMPLETIONS] == 1 then
  for _, key in ipairs({ series, rows, tasks, sketch, recent }) do redis.call('EXPIRE', key, life_s) end
end
return is_new_minute and 1 or 0
