-- Judge bots by what they did on one task: three sequential tests each, against what is usual in their pool. O(1), and
-- O(log bots) when one is quarantined. A function inside the finishing script; it runs alone for canaries.
--
-- Each test is Page's CUSUM, Wald's sequential probability ratio test that starts anew whenever it favours "good"
-- (Page 1954; Wald 1945). What is usual is the median over the bots of the pool's latest tasks: when all fail, none is
-- accused. Beyond the cap a bot stays and the pool's alarm is an event. Sources and figures: `docs/health.md`.
--
-- KEYS  1 health       string: 128 bytes, of them 31 * 3 rates of bots of the latest tasks; then 24 bytes per bot:
--                      3 floats evidence against it, 3 u8 rates, u8 quarantines, u32 tasks, u32 tasks since the last one
--       2 norms        hash: task class -> 6 doubles: median characters and milliseconds of its good answers, their
--                      count; for `skill.lua` its good and bad tasks, which fade, and a mean cost
--       3 bots         sorted set: bot -> place in the order of checkouts        TTL of all but 7 and 8: ARGV 5
--       4 quarantined  sorted set: bot -> end, us of Redis time
--       5 reasons      hash: bot -> who quarantined it, since when and why
--       6 probation    sorted set: bot -> tasks that it still has to do well
--       7 events       stream: what happened to the fleet
--       8 quiet        string, expires: the cap's alarm was recorded a moment ago
--       9 skills, 10 specialists   see skill.lua
-- ARGV  1 packed samples, 5 doubles each: number of the bot, 0 did well or 1 its answers were bad or 2 too short
--       or 3 says nothing of it but teaches what is usual, characters (-1: no say), ms at work (-1: no say), cost (any unit)
--       2 task class ('default': nobody is better at it)  3 pool  4 packed: first quarantine (us), most of a pool that may be out, tasks of a probation
--       5 life of the keys, s  6 out, see quarantine.lua
--       7, 8, 9 names of the events: quarantined, released, cap reached
-- Reply packed: number of a bot that is suspected or on probation, or 0 (4 bytes); then the norm of the class, or nothing
local health, norms, bots, quarantined, reasons, probation, events, quiet, skills, specialists = unpack(KEYS)
local samples, kind, pool, life_s, out = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local quarantine_us, most_out, trial = struct.unpack('<ddd', ARGV[4])
local ROW, ROW_BYTES, HEAD_BYTES, MOST_SAMPLED, NORM, NORM_BYTES = '<fffBBBBI4I4', 24, 128, 31, '<dddddd', 48
-- Evidence (natural logarithm of the likelihood ratio) that ends a test: ln(0.99 / 0.0001). On probation its square root
-- is enough: the bot has been found bad before. From SUSPECTED on it may be given canaries.
local ENOUGH, SUSPECTED = 9.2, 1.5
-- Rates of events: good bots have up to the first of these or 1.5 times what is usual, bad ones from the second or 3
-- times that of good ones. Where good ones may have more than the third, the test has nothing to say. In a hard class of
-- tasks good ones may have 1.5 times its share of bad answers.
local GOOD, BAD, NO_SAY = 0.05, 0.30, 0.60
-- Weight of the newest task in a bot's rates. Tasks of a class before its norm counts; classes that have one; classes
-- until which a new one may have specialists.
local NEWEST, LEARNT, MOST_KINDS, MOST_SKILLED = 0.1, 20, 1000, 64
-- Short: below this share of the median; fast, slow: of the median time. Times closer than this (ms) tell nothing.
local SHORT, FAST, SLOW, CLOSE_MS = 0.5, 0.6, 2.5, 100
local WHAT = { 'bad answers', 'avoids work', 'slow' }
-- After so many tasks without a quarantine the next one is as short as the first.
local FORGIVEN = 500

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]

local norm = redis.call('HGET', norms, kind)
local chars, ms, taught, class_good, class_bad, class_cost = 0, 0, 0, 0, 0, 0
if norm and #norm == NORM_BYTES then
  chars, ms, taught, class_good, class_bad, class_cost = struct.unpack(NORM, norm)
end
local known = taught >= LEARNT
local fleet_size = redis.call('ZCARD', bots)
-- Bots looked at, drawn anew all the time: two tasks of each in a small pool.
local sampled = math.min(MOST_SAMPLED, math.max(5, 2 * fleet_size - 1))

-- Median of a rate over the bots of the latest tasks.
local function usual(test)
  local rates, head = {}, redis.call('GETRANGE', health, 0, sampled * 3 - 1)
  for place = 1, sampled do
    rates[place] = string.byte(head, place * 3 - 3 + test) or 0
  end
  table.sort(rates)
  return rates[(sampled + 1) / 2] / 255
end

-- The evidence after one more task; `happened`: 1 or 0.
local function weigh(test, evidence, happened)
  if happened == 0 and evidence == 0 then
    return 0
  end
  local good = math.max(GOOD, 1.5 * usual(test))
  if test == 1 and class_bad > 0 then
    good = math.max(good, 1.5 * class_bad / (class_good + class_bad + 1))
  end
  if good > NO_SAY then
    return evidence
  end
  local bad = math.min(0.95, math.max(BAD, 3 * good))
  local step = happened == 1 and math.log(bad / good) or math.log((1 - bad) / (1 - good))
  return math.max(0, evidence + step)
end

local function tell(event, ...)
  redis.call('XADD', events, 'MAXLEN', '~', 1000, '*', 'event', event, 'pool', pool, ...)
  redis.call('EXPIRE', events, life_s)
end

local function put_out(bot, row, test)
  local are_out = redis.call('ZCOUNT', bots, string.format('%.0f', tonumber(out) / 2), '+inf')
  local allowed = math.floor(most_out * fleet_size)
  if are_out + 1 > allowed then
    row[test] = ENOUGH
    if allowed > 0 and redis.call('SET', quiet, 1, 'NX', 'EX', 60) then
      tell(ARGV[9], 'bot', bot, 'out', are_out, 'of', fleet_size)
    end
    return
  end
  local why = string.format('%s: %d%% of its last tasks, %d%% is usual', WHAT[test], row[3 + test] / 2.55, usual(test) * 100)
  math.randomseed(now_us % 2147483647)
  local length_us = quarantine_us * 2 ^ math.min(row[7], 10) * (0.8 + 0.4 * math.random())
  quarantine({ bots, quarantined, reasons }, { bot, out, string.format('%.0f', length_us), life_s, 'health|' .. why })
  redis.call('ZREM', probation, bot)
  row[1], row[2], row[3], row[7], row[9] = 0, 0, 0, math.min(row[7] + 1, 255), 0
  tell(ARGV[7], 'bot', bot, 'by', 'health', 'reason', why)
  return true
end

local suspect, needs_life = 0, false
for place = 1, #samples, 40 do
  local number, fault, said, ran, cost = struct.unpack('<ddddd', samples, place)
  local bot = string.format('%s-%03d', pool, number)
  local at = HEAD_BYTES + number * ROW_BYTES
  local raw = redis.call('GETRANGE', health, at, at + ROW_BYTES - 1)
  local row = { 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  if #raw == ROW_BYTES then
    row = { struct.unpack(ROW, raw) }
  end
  local happened = { fault == 1 and 1 or (fault == 0 and 0 or -1), fault == 2 and 1 or -1, -1 }
  if known and (fault == 0 or fault == 2) and ran >= 0 then
    local is_fast = ran < FAST * ms or ms < CLOSE_MS
    if fault == 0 and said >= 0 then happened[2] = said < SHORT * chars and is_fast and 1 or 0 end
    happened[3] = ran > SLOW * ms and ran > ms + CLOSE_MS and 1 or 0
  end

  local tried = redis.call('ZSCORE', probation, bot)
  local is_out = redis.call('ZSCORE', quarantined, bot)  -- what it ends now, it began before
  local needed, found, against = tried and ENOUGH / 2 or ENOUGH, nil, 0
  local was_clear = row[1] + row[2] + row[3] == 0 and not is_out
  for test = 1, 3 do
    if happened[test] >= 0 and not is_out then
      row[test] = weigh(test, row[test], happened[test])
      against = math.max(against, row[test])
      local rate = row[3 + test]
      row[3 + test] = happened[test] == 1 and math.ceil(rate + (255 - rate) * NEWEST) or math.floor(rate * (1 - NEWEST))
      if row[test] >= needed and happened[test] == 1 and not found then found = test end
    end
  end
  row[8], row[9] = row[8] + 1, row[9] + 1
  if row[9] >= FORGIVEN then row[7] = 0 end
  redis.call('SETRANGE', health, (now_us + place) % sampled * 3, string.char(row[4], row[5], row[6]))

  if found and redis.call('ZSCORE', bots, bot) then
    is_out = put_out(bot, row, found)
  elseif tried and fault < 3 and against < 1 then
    if tonumber(tried) > 1 then
      redis.call('ZINCRBY', probation, -1, bot)
    else
      redis.call('ZREM', probation, bot)
      tell(ARGV[8], 'bot', bot, 'by', 'health')
    end
  end
  if not is_out and (tried or math.max(row[1], row[2], row[3]) >= SUSPECTED) then suspect = number end
  needs_life = needs_life or row[8] % 64 == 1
  redis.call('SETRANGE', health, at, struct.pack(ROW, unpack(row, 1, 9)))

  local is_new = class_good + class_bad == 0
  if kind ~= 'default' and fault < 3 and not (is_new and (taught == 0 or redis.call('HLEN', norms) > MOST_SKILLED)) then
    local good = fault == 0 and 1 or 0
    skill({ skills, specialists }, { number, bot, good, cost, class_good, class_bad, class_cost, life_s })
    class_cost = is_new and cost or class_cost + (cost - class_cost) * 0.005
    if was_clear then  -- bad bots must not say what is usual
      class_good, class_bad = class_good * 0.999 + good, class_bad * 0.999 + 1 - good
    end
  end

  -- The norm: medians that move by a share towards each new value, ever smaller at first.
  if (fault == 0 or fault == 3) and said >= 0 and ran >= 0 then
    local step = math.max(0.02, 0.5 / (taught + 1))
    chars = math.max(1, taught == 0 and said or (said > chars and chars * (1 + step) or chars / (1 + step)))
    ms = math.max(1, taught == 0 and ran or (ran > ms and ms * (1 + step) or ms / (1 + step)))
    taught = taught + 1
  end
end
norm = ''
if taught > 0 then
  if taught == 1 and redis.call('HLEN', norms) >= MOST_KINDS then
    redis.call('HDEL', norms, redis.call('HRANDFIELD', norms))
  end
  norm = struct.pack(NORM, chars, ms, taught, class_good, class_bad, class_cost)
  redis.call('HSET', norms, kind, norm)
end
if needs_life or taught % 64 == 1 then
  for _, key in ipairs({ health, norms, probation, skills, specialists }) do redis.call('EXPIRE', key, life_s) end
end
return struct.pack('<I4', suspect) .. norm
