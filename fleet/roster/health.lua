-- Judge bots by what they did on one task: three sequential tests each, against what is usual in their pool. O(1), and
-- O(log bots) when one is quarantined. A function inside the finishing script; in `canary.lua` it judges canaries.
--
-- Each test is Page's CUSUM, Wald's sequential probability ratio test that starts anew whenever it favours "good"
-- (Page 1954; Wald 1945). What is usual is the median over the bots of the pool's latest tasks: when all fail, none is
-- accused. Of slowness it is also the share of the latest tasks that were slow: a provider is slow for all at once. Beyond the cap a bot stays and the pool's alarm is an event. Sources and figures: `docs/health.md`.
-- Tests, faults and places: `health.py`.
--
-- KEYS  health       string: HEAD_BYTES, of them SAMPLE_BYTES of each of the latest tasks: rates of its bot, and 1 if it
--                    was slow; then a packed row per bot             TTL of all but the events and quiet: life_s
--       norms        hash: task class -> packed: what is usual for it
--       bots         sorted set: bot -> place in the order of checkouts
--       quarantined  sorted set: bot -> end, us of Redis time
--       reasons      hash: bot -> who quarantined it, since when and why
--       probation    sorted set: bot -> tasks that it still has to do well
--       events       stream: what happened to the fleet, about 1,000 entries; TTL life_s
--       quiet        string: the cap's alarm was recorded a moment ago; TTL a minute
--       skills, specialists   see skill.lua
-- ARGV  now_us       Redis time; or what finish_together.lua keeps
--       samples      packed deeds, one after the other ('': nobody is judged)
--       kind         task class ('default': nobody is better at it)
--       pool         its name
--       rules        packed: first quarantine (us), most of a pool that may be out, tasks of a probation
--       life_s       life of the keys, s
--       quarantined_event, released_event, cap_event   names of the events
-- Reply packed: number of a bot that is suspected or on probation, or 0 (4 bytes); then the norm of the class, or nothing; of
--       several tasks that end together only the last one has it
local health, norms, bots, quarantined, reasons, probation, events, quiet, skills, specialists = unpack(KEYS)
local now_us, samples, kind, pool, rules, life_s = unpack(ARGV)
local kept = type(now_us) == 'table' and now_us
if kept then now_us = kept.now_us end
local quarantine_us, most_out, trial_tasks = struct.unpack(RULES_FORMAT, rules)
-- Rates of events: good bots have up to the first of these or 1.5 times what is usual, bad ones from the second or 3
-- times that of good ones, at most MOST_BAD. Where good ones may have more than the third, the test has nothing to say.
-- In a hard class of tasks good ones may have 1.5 times its share of bad answers.
local GOOD, BAD, NO_SAY, MOST_BAD, ABOVE_USUAL, ABOVE_GOOD = 0.05, 0.30, 0.60, 0.95, 1.5, 3
-- Bots looked at, at most and at least, drawn anew all the time: two tasks of each in a small pool.
local MOST_SAMPLED, LEAST_SAMPLED = 31, 5
-- Tasks of a class before its norm counts; classes that have one; classes until which a new one may have specialists.
local LEARNT, MOST_KINDS, MOST_SKILLED = 20, 1000, 64
-- Smallest step of a median towards a new value; what a task of the class counts after the next one; weight of its cost.
local STEP, FADE, NEWEST_COST = 0.02, 0.999, 0.005
-- Short: below this share of the median; fast, slow: of the median time. Times closer than this (ms) tell nothing.
local SHORT, FAST, SLOW, CLOSE_MS = 0.5, 0.6, 2.5, 100
-- After so many tasks without a quarantine the next one is as short as the first. The most that a row keeps of tasks
-- since then, and of faults.
local FORGIVEN, MOST_SINCE, MOST_FAULTS = 500, 65535, 255
-- The keys' life is pushed with every so manieth task.
local KEPT_EVERY = 64
local MOST_EVENTS = 1000

-- Nearly always nobody is out or on probation: then nothing more is asked about that.
local has_special = kept and kept.has_special
if has_special == nil or not kept then has_special = redis.call('EXISTS', quarantined, probation) > 0 end
local fleet_size = kept and kept.fleet_size or redis.call('ZCARD', bots)
local sampled = math.min(MOST_SAMPLED, math.max(LEAST_SAMPLED, 2 * fleet_size - 1))

local norm = kept and kept.norm
if not norm then
  local packed = redis.call('HGET', norms, kind)
  norm = packed and #packed == NORM_BYTES and { struct.unpack(NORM_FORMAT, packed) } or { NORM_ZEROS }
end

-- Puts a sample of a bot's task in its turn among the latest; those of several tasks, behind the first, in one go.
local function keep_sample(sample, place)
  local samples = kept and kept.samples
  if not samples then
    redis.call('SETRANGE', health, (now_us + place) % sampled * SAMPLE_BYTES, sample)
    if kept then kept.samples = { turn = now_us + place + 1 } end
    return
  end
  samples[#samples + 1] = sample
  kept.writes.samples = kept.writes.samples or function()
    for first = 1, #samples, sampled do  -- of more than there are places, the latest stay
      local at, some = samples.turn % sampled, math.min(#samples - first + 1, sampled)
      local till_end = math.min(some, sampled - at)
      redis.call('SETRANGE', health, at * SAMPLE_BYTES, table.concat(samples, '', first, first + till_end - 1))
      if till_end < some then
        redis.call('SETRANGE', health, 0, table.concat(samples, '', first + till_end, first + some - 1))
      end
      samples.turn = samples.turn + some
    end
    for k = #samples, 1, -1 do samples[k] = nil end
  end
end

-- Median of a rate over the bots of the latest tasks; of slowness the share of these tasks that were slow, if that is more.
local function usual(test)
  if kept and kept.writes.samples then kept.writes.samples() end
  local rates, slow, head = {}, 0, redis.call('GETRANGE', health, 0, sampled * SAMPLE_BYTES - 1)
  for place = 1, sampled do
    rates[place] = string.byte(head, (place - 1) * SAMPLE_BYTES + test) or 0
    slow = slow + (string.byte(head, place * SAMPLE_BYTES) or 0)
  end
  table.sort(rates)
  return math.max(rates[(sampled + 1) / 2] / 255, test == SLOWNESS and slow / sampled or 0)
end

-- The evidence after one more task; `happened`: 1 or 0.
local function weigh(test, evidence, happened)
  if happened == 0 and evidence == 0 then
    return 0
  end
  local good = math.max(GOOD, ABOVE_USUAL * usual(test))
  if test == ERRORS and norm[BAD_TASKS] > 0 then
    good = math.max(good, ABOVE_USUAL * norm[BAD_TASKS] / (norm[GOOD_TASKS] + norm[BAD_TASKS] + 1))
  end
  if good > NO_SAY then
    return evidence
  end
  local bad = math.min(MOST_BAD, math.max(BAD, ABOVE_GOOD * good))
  local step = happened == 1 and math.log(bad / good) or math.log((1 - bad) / (1 - good))
  return math.max(0, evidence + step)
end

local function tell(event, ...)
  redis.call('XADD', events, 'MAXLEN', '~', MOST_EVENTS, '*', 'event', event, 'pool', pool, ...)
  redis.call('EXPIRE', events, life_s)
end

-- What most of its bad answers had, in words: those of `fleet/faults.py`.
local function how(row)
  local said = {
    [EMPTY] = 'says nothing', [REFUSED] = 'refuses', [SCHEMA] = 'keeps to no schema', [REPEATED] = 'repeats itself',
    [SPENT] = 'thinks until no room is left', [REJECTED] = 'fails your validator', [CIRCLING] = 'goes round in circles',
    [FAN_OUT] = 'calls too many tools at once', [CRASHED] = 'fails in your function',
  }
  local known = said[row[FAULT]]
  return known and ', ' .. known or ''
end

-- Most of the bad answers lately: a majority vote in one place (Boyer and Moore 1981), in which good answers count down.
local function vote(row, fault)
  if fault == WELL then
    row[FAULTS] = math.max(0, row[FAULTS] - 1)
  elseif row[FAULT] == fault then
    row[FAULTS] = math.min(row[FAULTS] + 1, MOST_FAULTS)
  elseif row[FAULTS] == 0 then
    row[FAULT], row[FAULTS] = fault, 1
  else
    row[FAULTS] = row[FAULTS] - 1
  end
end

local function put_out(bot, row, test)
  local what = ({ 'bad answers' .. how(row), 'avoids work', 'slow' })[test]
  local seen = 1 - (1 - NEWEST) ^ row[TASKS]  -- the rates began at 0
  local share, usual_share = math.min(100, row[RATE + test] / 2.55 / seen), usual(test) * 100
  local reason = string.format('%s: %d%% of its last tasks, %d%% is usual', what, share, usual_share)
  local is_out = take_out(
    { bots, quarantined, reasons, probation, events, quiet }, {
      bot, pool, reason, row[QUARANTINES], quarantine_us, most_out, life_s, ARGV[QUARANTINED_EVENT], ARGV[CAP_EVENT],
    }) == 1
  if not is_out then
    row[EVIDENCE + test] = ENOUGH
    return false
  end
  has_special = true
  for k = 1, TESTS do row[EVIDENCE + k] = 0 end
  row[QUARANTINES], row[SINCE] = math.min(row[QUARANTINES] + 1, 255), 0
  return true
end

-- Tell the tests of a task, and return the one that has enough, the most evidence there is, and 1 if the task was slow.
local function test_row(row, fault, chars, ms, enough)
  local errors = fault == WELL and 0 or (fault == TEACHES or fault == TOO_SHORT) and -1 or 1  -- -1: it says nothing
  if errors >= 0 then vote(row, fault) end
  local avoids, slowness, found, most = fault == TOO_SHORT and 1 or -1, -1, nil, 0
  if norm[TASKS] >= LEARNT and (fault == WELL or fault == TOO_SHORT) and ms >= 0 then
    local usual_ms = norm[MS]
    local is_fast = ms < FAST * usual_ms or usual_ms < CLOSE_MS
    if fault == WELL and chars >= 0 then avoids = chars < SHORT * norm[CHARS] and is_fast and 1 or 0 end
    slowness = ms > SLOW * usual_ms and ms > usual_ms + CLOSE_MS and 1 or 0
  end
  for test, happened in ipairs({ errors, avoids, slowness }) do
    if happened >= 0 then
      local evidence, rate = weigh(test, row[EVIDENCE + test], happened), row[RATE + test]
      row[EVIDENCE + test], most = evidence, math.max(most, evidence)
      row[RATE + test] = happened == 1 and math.ceil(rate + (255 - rate) * NEWEST) or math.floor(rate * (1 - NEWEST))
      if evidence >= enough and happened == 1 and not found then found = test end
    end
  end
  return found, most, math.max(0, slowness)
end

-- Learn how the bot does this class, and the class's own share of good answers and cost.
local function learn_skill(number, bot, fault, cost, was_clear)
  local wrong = norm[WRONG_TASKS]  -- they were graded later, and are bad in the rows of `skills`
  local class_good, class_bad, class_cost = norm[GOOD_TASKS] - wrong, norm[BAD_TASKS] + wrong, norm[COST]
  local is_new = class_good + class_bad == 0
  if is_new and (norm[TASKS] == 0 or redis.call('HLEN', norms) > MOST_SKILLED) then return end
  local did_well = fault == WELL and 1 or 0
  skill({ skills, specialists }, { number, bot, did_well, cost, class_good, class_bad, class_cost, life_s })
  norm[COST] = is_new and cost or class_cost + (cost - class_cost) * NEWEST_COST
  if was_clear then  -- bad bots must not say what is usual
    norm[GOOD_TASKS], norm[BAD_TASKS] = norm[GOOD_TASKS] * FADE + did_well, norm[BAD_TASKS] * FADE + 1 - did_well
    norm[WRONG_TASKS] = wrong * FADE
  end
end

local suspect, needs_life = 0, false
for place = 1, #samples, DEED_BYTES do
  local number, fault, chars, ms, cost = struct.unpack(DEED_FORMAT, samples, place)
  local bot = string.format('%s-%03d', pool, number)
  local at = HEAD_BYTES + number * ROW_BYTES
  local raw = redis.call('GETRANGE', health, at, at + ROW_BYTES - 1)
  local row = #raw == ROW_BYTES and { struct.unpack(ROW_FORMAT, raw) } or { ROW_ZEROS }

  local tried = has_special and redis.call('ZSCORE', probation, bot)
  local is_out = has_special and redis.call('ZSCORE', quarantined, bot)  -- what it ends now, it began before
  local was_clear = row[EVIDENCE + ERRORS] + row[EVIDENCE + AVOIDS] + row[EVIDENCE + SLOWNESS] == 0 and not is_out
  local found, against, was_slow = nil, 0, 0
  if not is_out then
    -- On probation the square root is enough: the bot has been found bad before.
    found, against, was_slow = test_row(row, fault, chars, ms, tried and ENOUGH / 2 or ENOUGH)
  end
  row[TASKS], row[SINCE] = row[TASKS] + 1, math.min(row[SINCE] + 1, MOST_SINCE)
  if row[SINCE] >= FORGIVEN then row[QUARANTINES] = 0 end
  local sample = string.char(row[RATE + ERRORS], row[RATE + AVOIDS], row[RATE + SLOWNESS], was_slow)
  keep_sample(sample, place)

  if found and redis.call('ZSCORE', bots, bot) then
    is_out = put_out(bot, row, found)
  elseif tried and fault ~= TEACHES and against < 1 then
    if tonumber(tried) > 1 then
      redis.call('ZINCRBY', probation, -1, bot)
    else
      redis.call('ZREM', probation, bot)
      tell(ARGV[RELEASED_EVENT], 'bot', bot, 'by', 'health')
    end
  end
  local most = math.max(row[EVIDENCE + ERRORS], row[EVIDENCE + AVOIDS], row[EVIDENCE + SLOWNESS])
  if not is_out and (tried or most >= SUSPECTED) then suspect = number end
  needs_life = needs_life or row[TASKS] % KEPT_EVERY == 1
  redis.call('SETRANGE', health, at, struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)))
  if kind ~= 'default' and fault ~= TEACHES then learn_skill(number, bot, fault, cost, was_clear) end

  -- The norm: medians that move by a share towards each new value, ever smaller at first.
  if (fault == WELL or fault == TEACHES) and chars >= 0 and ms >= 0 then
    local tasks, step = norm[TASKS], 1 + math.max(STEP, 0.5 / (norm[TASKS] + 1))
    local usual_chars, usual_ms = norm[CHARS], norm[MS]
    norm[CHARS] = math.max(1, tasks == 0 and chars or chars > usual_chars and usual_chars * step or usual_chars / step)
    norm[MS] = math.max(1, tasks == 0 and ms or ms > usual_ms and usual_ms * step or usual_ms / step)
    norm[TASKS] = tasks + 1
  end
end
local packed_norm = ''
if norm[TASKS] > 0 then
  if norm[TASKS] == 1 and redis.call('HLEN', norms) >= MOST_KINDS then
    redis.call('HDEL', norms, redis.call('HRANDFIELD', norms))
  end
  local function write_norm() redis.call('HSET', norms, kind, struct.pack(NORM_FORMAT, unpack(norm, 1, NORM_PLACES))) end
  if not (kept and kept.norm) then write_norm() else kept.writes.norm = kept.writes.norm or write_norm end
  if not kept or kept.is_last then packed_norm = struct.pack(NORM_FORMAT, unpack(norm, 1, NORM_PLACES)) end
  if kept then kept.norm = norm end
end
if kept then kept.has_special, kept.fleet_size = has_special, fleet_size end
if needs_life or norm[TASKS] % KEPT_EVERY == 1 then
  for _, key in ipairs({ health, norms, probation, skills, specialists }) do redis.call('EXPIRE', key, life_s) end
end
return struct.pack('<I4', suspect) .. packed_norm
