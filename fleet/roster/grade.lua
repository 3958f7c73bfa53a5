-- Learn that one answer was right or wrong: of its bot, its kind of tasks and its model, and take the bot out when it is
-- wrong too often for its kind. O(log bots). Each task counts once.
--
-- The test is Page's CUSUM, as in `health.lua`, of "wrong besides in LIES of the tasks that others get right". What is
-- usual is learnt from all bots of the kind but those under suspicion; what these did since it began is taken back, and
-- given back when they are cleared. Evidence is counts, weighed by what is usual now: so a kind that becomes harder for
-- all accuses nobody. Sources, figures and the bound of false alarms: `docs/health.md`.
-- Places and numbers: `grading.py`.
--
-- KEYS  mark         string: the task's grade                                             TTL: mark_life_s
--       grades       string: HEAD_BYTES: what is usual, then a packed row per bot         TTL of the others: life_s
--       classes      sorted set: class -> time of its last grade, s
--       doubted      sorted set of all pools: class|bot -> evidence
--       models       hash: provider/model -> packed, as a bot's row in skill.lua
--       health       string: see health.lua; here a bot's quarantines
--       norms, skills   see health.lua, skill.lua
--       bots, quarantined, reasons, probation, events, quiet   see take_out.lua
--       totals       hash: counter -> integer                                           no TTL
-- ARGV  number       of the bot; 0: none is judged, only its model
--       is_right     1, or 0
--       class_       of the grade: the task's kind, or what its votes are kept under
--       kind         of the task ('': it is no grade of the answer itself, but a vote: nothing else learns from it)
--       pool         its name
--       model        provider/model ('': unknown)
--       cost         of the task, as in health.lua
--       rules        packed: first quarantine (us), most of a pool that may be out, tasks of a probation
--       watch        1: bots are taken out
--       adaptive     1: the most suspicious bots are graded most; 0: all alike
--       life_s, mark_life_s   lives of keys, s
--       quarantined_event, cap_event   names of the events
--       counter      of such grades
-- Reply 1 counted, 2 counted and the bot is out, 0 it was graded before, -1 there are too many classes
local KEYS, ARGV = KEYS, ARGV
local mark, grades, classes, doubted, models, health, norms, skills, bots, quarantined, reasons, probation, events, quiet,
  totals = unpack(KEYS)
local number, is_right, class_, kind, pool, model, cost, rules, watch, adaptive, life_s = unpack(ARGV)
local is_wrong = is_right == '0' and 1 or 0
local quarantine_us, most_out, trial_tasks = struct.unpack(RULES_FORMAT, rules)
-- Classes of a pool; one that nobody has graded for so long (s) makes room.
local MOST_CLASSES, QUIET_S = 64, 86400
-- Models of a kind.
local MOST_MODELS = 64
-- What a task counts after the next one: in what is usual (5,000 are remembered), of a bot (200), of a model (2,000).
local FADE, FADE_BOT, FADE_MODEL = 0.9998, 0.995, 0.9995
-- What is usual lately: so many tasks of each bot, of all together at least and at most.
local RECENT_EACH, LEAST_RECENT, MOST_RECENT = 5, 100, 500
-- Grades of a class before anybody is tested; where what is usual lies at least and at most.
local LEARNT, LEAST, MOST = 30, 0.05, 0.95
-- In a kind in which more than this share is usually wrong evidence counts less: what is usual is known less well there.
local EASY, HARDER = 0.1, 0.35
-- Evidence from which on a bot does not say what is usual; most grades of an excursion that are kept.
local SUSPECT, MOST_SINCE = 3, 65535

local now_s = tonumber(redis.call('TIME')[1])
if not redis.call('ZSCORE', classes, class_) then
  redis.call('ZREMRANGEBYSCORE', classes, '-inf', now_s - QUIET_S)
  if redis.call('ZCARD', classes) >= MOST_CLASSES then return -1 end
end
if not redis.call('SET', mark, is_right, 'NX', 'EX', ARGV[MARK_LIFE_S]) then return 0 end
redis.call('ZADD', classes, now_s, class_)
redis.call('EXPIRE', classes, life_s)
redis.call('HINCRBY', totals, ARGV[COUNTER], 1)

local raw_usual = redis.call('GETRANGE', grades, 0, USUAL_BYTES - 1)
local usual = #raw_usual == USUAL_BYTES and { struct.unpack(USUAL_FORMAT, raw_usual) } or { USUAL_ZEROS }
local at = HEAD_BYTES + number * ROW_BYTES
local raw_row = redis.call('GETRANGE', grades, at, at + ROW_BYTES - 1)
local row = #raw_row == ROW_BYTES and { struct.unpack(ROW_FORMAT, raw_row) } or { ROW_ZEROS }
local bot = string.format('%s-%03d', pool, number)

-- Share of wrong answers that is usual. When more are wrong lately than the bots explain that may be out, it is the tasks.
local function usual_share()
  local known = (usual[BAD] + 1) / (usual[GOOD] + usual[BAD] + 10)
  local recent = usual[RECENT_BAD] / math.max(1, usual[RECENT_GOOD] + usual[RECENT_BAD])
  local is_new = recent > known + most_out * LIES * (1 - known)
  return math.min(MOST, math.max(LEAST, is_new and recent or known))
end

local function evidence_of(share)
  local hit = math.log((share + LIES * (1 - share)) / share)
  local evidence = row[WRONG] * hit + (row[SINCE] - row[WRONG]) * math.log(1 - LIES)
  return evidence / (1 + HARDER * math.max(0, share - EASY))
end

local function teach(sign)
  usual[GOOD] = math.max(0, usual[GOOD] + sign * (row[SINCE] - row[WRONG]))
  usual[BAD] = math.max(0, usual[BAD] + sign * row[WRONG])
end

-- One more grade of this bot: return the evidence.
local function weigh()
  local share = usual_share()
  if evidence_of(share) <= 0 then
    if row[SUSPECTED] == 1 then teach(1) end
    row[SINCE], row[WRONG], row[SUSPECTED] = 0, 0, 0
  end
  row[SINCE], row[WRONG] = math.min(MOST_SINCE, row[SINCE] + 1), math.min(MOST_SINCE, row[WRONG] + is_wrong)
  local evidence = evidence_of(share)
  usual[GOOD], usual[BAD] = usual[GOOD] * FADE, usual[BAD] * FADE
  if row[SUSPECTED] == 0 then
    usual[GOOD], usual[BAD] = usual[GOOD] + 1 - is_wrong, usual[BAD] + is_wrong
  end
  if evidence >= SUSPECT and row[SUSPECTED] == 0 then teach(-1) end
  if evidence < SUSPECT and row[SUSPECTED] == 1 then teach(1) end
  row[SUSPECTED] = evidence >= SUSPECT and 1 or 0
  if evidence <= 0 then row[SINCE], row[WRONG] = 0, 0 end
  return math.max(0, evidence), share
end

local function put_out(share)
  local place = HEALTH_HEAD_BYTES + number * STANDING_BYTES
  local raw = redis.call('GETRANGE', health, place, place + STANDING_BYTES - 1)
  local standing = #raw == STANDING_BYTES and { struct.unpack(STANDING_FORMAT, raw) } or { STANDING_ZEROS }
  local what = kind == '' and 'answers otherwise' or 'wrong answers'
  local reason = string.format('%s: %d%% of its last %d graded tasks of kind %s, %d%% is usual',
    what, 100 * row[WRONG] / row[SINCE], row[SINCE], string.match(class_, '^[^:]+'), 100 * share)
  local is_out = take_out(
    { bots, quarantined, reasons, probation, events, quiet }, {
      bot, pool, reason, standing[QUARANTINES], quarantine_us, most_out, life_s, ARGV[QUARANTINED_EVENT],
      ARGV[CAP_EVENT],
    }) == 1
  if is_out then
    for k = 1, TESTS do standing[EVIDENCE + k] = 0 end
    standing[QUARANTINES], standing[SINCE] = math.min(standing[QUARANTINES] + 1, 255), 0
    redis.call('SETRANGE', health, place, struct.pack(STANDING_FORMAT, unpack(standing, 1, STANDING_PLACES)))
    row[SINCE], row[WRONG], row[SUSPECTED] = 0, 0, 0
  end
  return is_out
end

-- Test the bot; return true when that takes it out.
local function test()
  if usual[RECENT_GOOD] + usual[RECENT_BAD] < LEARNT then
    usual[GOOD], usual[BAD] = usual[GOOD] + 1 - is_wrong, usual[BAD] + is_wrong
    row[SINCE], row[WRONG] = math.min(MOST_SINCE, row[SINCE] + 1), math.min(MOST_SINCE, row[WRONG] + is_wrong)
    return false
  end
  local evidence, share = weigh()
  local tried = redis.call('ZSCORE', probation, bot)
  if tried and is_wrong == 1 then  -- it was counted as done well
    redis.call('ZADD', probation, 'XX', math.min(trial_tasks, tried + 1), bot)
  end
  local is_enough = is_wrong == 1 and evidence >= (tried and ENOUGH / 2 or ENOUGH)
  local is_out = is_enough and watch == '1' and redis.call('ZSCORE', bots, bot) and put_out(share) or false
  local member = class_ .. '|' .. bot
  if is_out or evidence < SUSPECT then
    redis.call('ZREM', doubted, member)
  else
    redis.call('ZADD', doubted, string.format('%.1f', evidence), member)
  end
  return is_out
end

-- A wrong answer was taken for a good one when its task ended: the bot's skill and its class's norm learn better.
local function correct()
  local place = number * SKILL_BYTES
  local raw = redis.call('GETRANGE', skills, place, place + SKILL_BYTES - 1)
  local packed = redis.call('HGET', norms, kind)
  if #raw ~= SKILL_BYTES or not packed or #packed ~= NORM_BYTES then return end
  local skill, norm = { struct.unpack(SKILL_FORMAT, raw) }, { struct.unpack(NORM_FORMAT, packed) }
  local moved = math.min(1, skill[GOOD])
  skill[GOOD], skill[BAD] = skill[GOOD] - moved, skill[BAD] + moved
  norm[WRONG_TASKS] = math.min(norm[GOOD_TASKS], norm[WRONG_TASKS] + moved)
  redis.call('SETRANGE', skills, place, struct.pack(SKILL_FORMAT, unpack(skill, 1, SKILL_PLACES)))
  redis.call('HSET', norms, kind, struct.pack(NORM_FORMAT, unpack(norm, 1, NORM_PLACES)))
end

local function learn_model()
  local packed = redis.call('HGET', models, model)
  if not packed and redis.call('HLEN', models) >= MOST_MODELS then return end
  local good, bad, costs, squares = 0, 0, 0, 0
  if packed and #packed == SKILL_BYTES then good, bad, costs, squares = struct.unpack(SKILL_FORMAT, packed) end
  good, bad = good * FADE_MODEL + 1 - is_wrong, bad * FADE_MODEL + is_wrong
  costs, squares = costs * FADE_MODEL + cost, squares * FADE_MODEL + cost * cost
  redis.call('HSET', models, model, struct.pack(SKILL_FORMAT, good, bad, costs, squares))
  redis.call('EXPIRE', models, life_s)
end

local is_out = false
if number ~= '0' then
  row[RIGHTS], row[WRONGS] = row[RIGHTS] * FADE_BOT + 1 - is_wrong, row[WRONGS] * FADE_BOT + is_wrong
  local recent = math.max(LEAST_RECENT, math.min(MOST_RECENT, RECENT_EACH * redis.call('ZCARD', bots)))
  -- Suspects are asked about more often than others; until enough is known, nobody is one.
  if adaptive == '0' or row[WRONG] == 0 or usual[RECENT_GOOD] + usual[RECENT_BAD] < LEARNT then
    usual[RECENT_GOOD] = usual[RECENT_GOOD] * (1 - 1 / recent) + 1 - is_wrong
    usual[RECENT_BAD] = usual[RECENT_BAD] * (1 - 1 / recent) + is_wrong
  end
  if not redis.call('ZSCORE', quarantined, bot) then is_out = test() end  -- what it ends now, it began before
  redis.call('SETRANGE', grades, 0, struct.pack(USUAL_FORMAT, unpack(usual, 1, USUAL_PLACES)))
  redis.call('SETRANGE', grades, at, struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)))
  for _, key in ipairs({ grades, doubted }) do redis.call('EXPIRE', key, life_s) end
  if kind ~= '' and is_wrong == 1 then correct() end
end
if kind ~= '' and model ~= '' then learn_model() end
return is_out and 2 or 1
