-- Finish a task exactly once: store its result, wake who waits for it, count it, judge its bots and check them in.
-- O(log bots).
--
-- The first result of a task stands. A later one is only counted as such, and its bots checked in; the very same
-- result again (its first reply was lost) counts nothing.
--
-- A revoked task has a result that others store. With nothing earned (`earned_pairs` 0) what it cost is counted, once:
-- `result` is then the mark that says so, and `payload` what tells this submission of the task from others.
--
-- KEYS  result         string: JSON as Celery's Redis backend stores it; also the channel   TTL: result_life_s
--       totals         hash: counter -> integer, of the pool                     no TTL: a counter that falls lies
--       errors         hash: bot|provider/model|type -> count                    TTL: life_s
--       bots           sorted set: bot -> load * UNIT + ms of the last checkout
--       leases         sorted set: bot|token -> expiry, us of Redis time
--       claims         hash: token -> bot
--       series, rows, tasks, sketch, recent, failures, events                    see record.lua
--       health, norms, quarantined, reasons, probation, quiet, skills, specialists   see health.lua
--       letters, bodies, order, bytes                                            see record_dead_letter.lua
--       index          sorted set: delivery tag -> last renewal; only when a fence is given
-- ARGV  payload        result JSON
--       result_life_s  life of the result, s
--       life_s         life of the errors and of what the functions keep, s
--       checkouts      "bot|token" of all checkouts, a line each
--       later_counter  name of the counter of later results
--       fence          delivery tag of the task's message ('': no fence)
--       fenced_counter  name of the counter of fenced results
--       mark           key of the mark of its idempotency key ('': none, or on another Redis): lives as long as the result
--       sample, shown_id, line, dead_reason, pool, dead_letter, others, most     see record.lua
--       samples ('': nobody is judged), kind, rules, quarantined_event, released_event, cap_event   see health.lua
--       task_id, letter_pool, reason, letter ('': no dead letter), body, most_letters, refused, most_refused, most_bytes,
--       letter_life_s, letters_counter, dropped_counter                          see record_dead_letter.lua
--       spent_pairs, earned_pairs   numbers of the pairs that follow
--       counted        pairs counter, amount: those counted also when the result is discarded, those that are earned, the
--                      first of them the counter of results; then pairs errors-field, amount
-- Reply code (one digit), then the reply of health.lua if anybody was judged
-- Codes 1 this result stands, 0 the task has another one, 2 fenced: the message's lease was lost
local KEYS, ARGV = KEYS, ARGV  -- as globals each use of them would be a look-up
local result, totals, errors, bots, leases, claims = unpack(KEYS)
local payload, result_life_s, life_s, checkouts, later_counter, fence, fenced_counter, mark = unpack(ARGV)
local spent_end = COUNTED + 2 * tonumber(ARGV[SPENT_PAIRS])
local earned_end = spent_end + 2 * tonumber(ARGV[EARNED_PAIRS])

-- What was read for all tasks that end together: see finish_together.lua; nil: this one ends alone.
local kept = ARGV.kept

if not (kept and kept.are_checked_in) then
  for bot, token in string.gmatch(checkouts, '([^|\n]+)|([^\n]+)') do
    if redis.call('ZREM', leases, bot .. '|' .. token) == 1 then
      redis.call('HDEL', claims, token)
      local score = redis.call('ZADD', bots, 'XX', 'INCR', -UNIT, bot)
      if score and tonumber(score) < 0 then redis.call('ZADD', bots, 'XX', 'INCR', UNIT, bot) end
    end
  end
end

local is_revoked = earned_end == spent_end
local has_lease = fence == ''
if not has_lease and kept then has_lease = kept.held[fence] end
if not has_lease and not kept then has_lease = redis.call('ZSCORE', KEYS[INDEX], fence) end
local is_first = has_lease and not is_revoked and redis.call('SET', result, payload, 'NX', 'EX', result_life_s)
local stored = not is_first and redis.call('GET', result)
if stored == payload then return '1' end
local fenced = not stored and not has_lease
-- The time; where several tasks end together, with what was read for those before.
local now_us = kept
if not kept then
  local seconds, microseconds = unpack(redis.call('TIME'))
  now_us = seconds * 1000000 + microseconds
end

-- Adds to sums that were read for a task before, or are read now; they are written when all tasks have ended.
local function count_on(from, to)
  local sums, missing = kept.sums or {}, {}
  for i = from, to, 2 do
    if not sums[ARGV[i]] then missing[#missing + 1] = ARGV[i] end
  end
  if #missing > 0 then
    for k, before in ipairs(redis.call('HMGET', totals, unpack(missing))) do
      sums[missing[k]] = tonumber(before or 0)
    end
  end
  for i = from, to, 2 do sums[ARGV[i]] = sums[ARGV[i]] + tonumber(ARGV[i + 1]) end
  kept.sums = sums
  kept.writes.sums = function()
    local written = {}
    for name, sum in pairs(sums) do written[#written + 1], written[#written + 2] = name, string.format('%.0f', sum) end
    redis.call('HSET', totals, unpack(written))
  end
  return sums
end

-- Adds to fields of a hash: one look and one write, whatever their number. Sums are whole, below 2^53. Returns the sums,
-- and whether one of them is new.
local function count(from, to, hash)
  if from > to then return {} end
  if kept and hash == totals then return count_on(from, to) end
  local names, sums, is_new = {}, {}, false
  for i = from, to, 2 do names[#names + 1] = ARGV[i] end
  local before, written = redis.call('HMGET', hash, unpack(names)), {}
  for place, name in ipairs(names) do
    is_new = not before[place] or is_new
    sums[name] = (sums[name] or tonumber(before[place]) or 0) + tonumber(ARGV[from + 2 * place - 1])
    written[2 * place - 1], written[2 * place] = name, string.format('%.0f', sums[name])
  end
  redis.call('HSET', hash, unpack(written))
  return sums, is_new
end

local function judge()
  return health(
    {
      KEYS[HEALTH], KEYS[NORMS], bots, KEYS[QUARANTINED], KEYS[REASONS], KEYS[PROBATION], KEYS[EVENTS], KEYS[QUIET],
      KEYS[SKILLS], KEYS[SPECIALISTS],
    }, {
      now_us, ARGV[SAMPLES], ARGV[KIND], ARGV[POOL], ARGV[RULES], life_s, ARGV[QUARANTINED_EVENT], ARGV[RELEASED_EVENT],
      ARGV[CAP_EVENT],
    })
end

local function bury()
  record_dead_letter(
    { result, KEYS[LETTERS], KEYS[BODIES], KEYS[ORDER], KEYS[BYTES], totals }, {
      ARGV[TASK_ID], ARGV[LETTER_POOL], ARGV[REASON], ARGV[LETTER], ARGV[BODY], ARGV[MOST_LETTERS], ARGV[REFUSED],
      ARGV[MOST_REFUSED], ARGV[MOST_BYTES], ARGV[LETTER_LIFE_S], ARGV[LETTERS_COUNTER], ARGV[DROPPED_COUNTER],
    })
end

if mark ~= '' and not fenced then redis.call('SET', mark, 'done', 'XX', 'EX', result_life_s) end
local nth, judged, has_new_errors = 0, '', false
if is_revoked then redis.call('SET', result, payload, 'EX', result_life_s) end
if stored or fenced or is_revoked then
  count(COUNTED + 1, spent_end, totals)
  redis.call('HINCRBY', totals, fenced and fenced_counter or later_counter, 1)
else
  redis.call('PUBLISH', result, payload)
  nth = count(COUNTED + 1, earned_end, totals)[ARGV[spent_end + 1]]
  has_new_errors = select(2, count(earned_end + 1, #ARGV, errors))
  if ARGV[LETTER] ~= '' then bury() end
  if ARGV[SAMPLES] ~= '' then judged = judge() end
end
local is_new_minute = record(
  { KEYS[SERIES], KEYS[ROWS], KEYS[TASKS], KEYS[SKETCH], KEYS[RECENT], KEYS[FAILURES], KEYS[EVENTS] }, {
    now_us, nth, ARGV[SAMPLE], ARGV[SHOWN_ID], ARGV[LINE], ARGV[DEAD_REASON], life_s, ARGV[POOL], ARGV[DEAD_LETTER],
    ARGV[OTHERS], ARGV[MOST],
  }) == 1
-- Its life is pushed when it may be new, and once a minute: not with every task.
if has_new_errors or is_new_minute then redis.call('EXPIRE', errors, life_s) end
return (fenced and '2' or ((stored or is_revoked) and '0' or '1')) .. judged
