-- Check out the least-loaded bot of a pool, for each of several tasks; among equal loads the one whose last checkout is
-- longest ago.
--
-- Nothing is checked out for a task that has a result already. The same token again answers the same bot. Tasks that come
-- together are served one after the other; where nothing speaks against any bot, with the commands of one.
-- Expired leases are reaped first, a bounded number per call: their holders died, so their bots' loads go down; so are
-- quarantines that are over. A quarantined bot's score has OUT added, so it comes after all others and is not taken.
-- Who comes out of a quarantine by its health is on probation: with each task its place is put four turns into the future,
-- and until then its turns go to others.
-- A share of the tasks of a class goes to a specialist of it, drawn by Thompson sampling among three of them and the bot
-- whose turn it is (Thompson 1933; by reward over cost as in Xia et al., "Thompson Sampling for Budgeted Multi-armed
-- Bandits", 2015; normal posteriors): who has turns, keeps learning, and nobody loses more than that share.
-- For a second opinion other bots than those who had the task are looked for, and first of all unsuspected ones.
-- Bots to be avoided have no money: their places are put into the future, so that nobody comes upon them until then.
--
-- KEYS  bots         sorted set: bot -> load * UNIT + ms of the last checkout    TTL of this and all below: life_s
--       leases       sorted set: bot|token -> expiry, us of Redis time
--       claims       hash: token -> bot
--       quarantined  sorted set: bot -> end of its quarantine, us of Redis time
--       reasons      hash: bot -> us of Redis time|who|why of its quarantine
--       probation    sorted set: bot -> tasks that it still has to do well
--       health       string: evidence against each bot, see health.lua; only read
--       reaped       sorted set: token -> s: leases that ran out, the newest REAPED_KEPT
--       skills, specialists   of the task's class, see skill.lua; only read
--       results      string: the result of each task. REVOKED is none: who was told so and has its task here again, submitted
--                    it anew, for a revoked message never comes this far
-- ARGV  lease_us          life of the lease
--       life_s            life of the keys, s
--       trial_tasks       of a probation (0: none)
--       besides           "|bot|bot|" that have worked on the task already ('': none)
--       specialist_share  of tasks for specialists
--       among             "|bot|bot|" of which one is wanted, the least loaded ('': any)
--       avoid             "|bot|bot|" that are not to be taken; a claim of a token on one of them ends
--       tokens            of each task one, unique per execution of it
-- Reply "code|bot"; of several tasks a list of them (an array is a send of its own from Redis 6, even in a pipeline)
-- Codes 1 checked out;  without a bot: 0 the task has a result, -1 the pool has no bots, -2 all of its bots are
--       quarantined or to be avoided, or there is no other
-- Bots looked at, at most, for one that is not suspected; and loads, for bots whose turn it is.
local LOOKED_AT, LOADS = 8, 8
-- How long a bot without money is passed over by all, unless nobody else is there.
local ASIDE_MS = 5000
-- A bot on probation waits for so many turns after each task, and no longer than this.
local TURNS, MOST_LATER_MS = 4, 600000
-- Specialists among which one is drawn.
local DRAWN = 3
local WITHDRAWN = '"status": "REVOKED"'
local bots, leases, claims, quarantined, reasons, probation, health, reaped, skills, specialists = unpack(KEYS)
local lease_us, life_s = ARGV[LEASE_US], ARGV[LIFE_S]
local trial_tasks, besides, specialist_share = ARGV[TRIAL_TASKS], ARGV[BESIDES], ARGV[SPECIALIST_SHARE]
local among, avoid = ARGV[AMONG], ARGV[AVOID]
local avoided, tasks = {}, #ARGV - TOKENS
local answers, leased = {}, {}

local seconds, microseconds = unpack(redis.call('TIME'))
local now_us = seconds * 1000000 + microseconds
local now_ms = math.floor(now_us / 1000) - CLOCK_START_MS
local now_text = string.format('%.0f', now_us)

-- Keep in mind that the task of a token had begun: whoever finds its message left behind asks for that.
local function note_reaped(held_by)
  redis.call('ZADD', reaped, seconds, held_by)
  redis.call('ZREMRANGEBYRANK', reaped, 0, -REAPED_KEPT - 1)
  redis.call('EXPIRE', reaped, life_s)
end

-- Give the bots of holders that died back.
local function reap()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now_text, 'LIMIT', 0, REAP_MOST)) do
    local bot, held_by = string.match(member, '^([^|]+)|(.*)$')
    redis.call('ZREM', leases, member)
    redis.call('HDEL', claims, held_by)
    note_reaped(held_by)
    local score = redis.call('ZSCORE', bots, bot)
    if score and tonumber(score) >= UNIT then
      redis.call('ZINCRBY', bots, -UNIT, bot)
    end
  end
end

-- Let bots come back whose quarantine is over.
local function end_quarantines()
  for _, bot in ipairs(redis.call('ZRANGEBYSCORE', quarantined, '-inf', now_text, 'LIMIT', 0, REAP_MOST)) do
    if tonumber(trial_tasks) > 0 and string.match(redis.call('HGET', reasons, bot) or '', '^%d+|health|') then
      redis.call('ZADD', probation, trial_tasks, bot)
      redis.call('EXPIRE', probation, life_s)
    end
    release({ bots, quarantined, reasons }, { bot })
  end
end

-- The lease that ends first tells whether any has run out, and whether the keys of leases are there.
local _, ends_us = unpack(redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES'))
local may_be_first = not ends_us or tonumber(ends_us) <= now_us
if ends_us and may_be_first then reap() end
-- Nearly always there is none of these: then nothing more is asked about them.
local has_special = redis.call('EXISTS', quarantined, probation, specialists) > 0
if has_special then end_quarantines() end
-- The order of checkouts is asked for once for all tasks where all that counts in it is load and turn.
local is_plain = not has_special and besides == '' and among == '' and avoid == ''

-- Put the bots that are to be avoided behind those of the same load, and end the token's claim on one of them.
local function set_aside(token)
  local claimed = redis.call('HGET', claims, token)
  for bot in string.gmatch(avoid, '[^|]+') do
    avoided[bot] = true
    local score = tonumber(redis.call('ZSCORE', bots, bot) or OUT)
    local is_claimed = claimed == bot and redis.call('ZREM', leases, bot .. '|' .. token) == 1
    if is_claimed then
      redis.call('HDEL', claims, token)
      may_be_first = true  -- it may have been the last one: whoever comes next makes the keys
    end
    if score < OUT / 2 then
      local load = math.floor(score / UNIT)
      if is_claimed and load > 0 then load = load - 1 end
      local place = math.max(score % UNIT, now_ms + ASIDE_MS)
      redis.call('ZADD', bots, string.format('%.0f', load * UNIT + place), bot)
    elseif is_claimed and score >= OUT + UNIT then
      redis.call('ZINCRBY', bots, -UNIT, bot)
    end
  end
end

-- True for a bot that has not had the task, and is not to be avoided.
local function is_wanted(bot)
  return not avoided[bot] and not string.find(besides, '|' .. bot .. '|', 1, true)
end

-- The first bot from a score on whose place is not in the future, and its score. Where the first of a load has its place
-- in the future, all of that load have.
local function first_from(least)
  while true do
    local bot, score = unpack(redis.call('ZRANGEBYSCORE', bots, least, '+inf', 'WITHSCORES', 'LIMIT', 0, 1))
    score = tonumber(score)
    if not score or score >= OUT / 2 or score % UNIT <= now_ms then
      return bot, score
    end
    least = string.format('%.0f', (math.floor(score / UNIT) + 1) * UNIT)
  end
end

-- The first bot that is wanted, and its score, whether its turn is in the future or not: for when nobody else is there.
-- O(bots that are not wanted), of which there are many only where all others are out.
local function anybody()
  local first, score = 0, nil
  while true do
    local found = redis.call('ZRANGE', bots, first, first + LOOKED_AT - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
      score = tonumber(found[i + 1])
      if score >= OUT / 2 or is_wanted(found[i]) then return found[i], score end
    end
    if #found == 0 then return '', score and OUT end
    first = first + LOOKED_AT
  end
end

-- The bot whose turn it is, and its score; when nobody else is there, one whose turn is in the future.
local function next_bot()
  local bot, score = first_from('-inf')
  if not score or score >= OUT / 2 then return anybody() end
  return bot, score
end

-- Where a bot on probation stands after this task. A turn is as long as the next one's has been.
local function later_ms(score)
  local _, next_score = first_from('(' .. string.format('%.0f', score))
  local since_ms = next_score and next_score < OUT / 2 and next_score % UNIT or 0
  return now_ms + (since_ms > 0 and math.min(MOST_LATER_MS, TURNS * (now_ms - since_ms)) or 0)
end

-- A draw of a bot's good answers per cost: what is not known yet may be anything.
local function draw_skill(bot)
  local at = tonumber(string.match(bot, '%d+$')) * SKILL_BYTES
  local raw = redis.call('GETRANGE', skills, at, at + SKILL_BYTES - 1)
  local good, bad, costs, squares = 0, 0, 0, 0
  if #raw == SKILL_BYTES then
    good, bad, costs, squares = struct.unpack(SKILL_FORMAT, raw)
  end
  local tasks = good + bad
  local share = (good + 1) / (tasks + 2)
  local normal = math.sqrt(-2 * math.log(1 - math.random())) * math.cos(2 * math.pi * math.random())
  local drawn = math.max(0, share + normal * math.sqrt(share * (1 - share) / (tasks + 3)))
  return drawn / math.max(1, costs / math.max(1, tasks)), tasks > 0
end

-- A specialist, if one is drawn and has hardly more to do than `bot`, whose turn it is; else that one.
local function or_specialist(bot, score)
  math.randomseed(now_us % 2147483647)
  if math.random() >= tonumber(specialist_share) then
    return bot, score
  end
  local best, is_known = draw_skill(bot)
  for _, name in ipairs(redis.call('ZRANDMEMBER', specialists, DRAWN)) do
    local drawn, is_practised = draw_skill(name)
    local its_score = tonumber(redis.call('ZSCORE', bots, name) or OUT)
    local is_free = its_score < OUT / 2 and its_score % UNIT <= now_ms
      and math.floor(its_score / UNIT) <= math.floor(score / UNIT) + 1
    if is_known and is_practised and is_free and name ~= bot and drawn > best
      and not redis.call('ZSCORE', probation, name) then
      bot, score, best = name, its_score, drawn
    end
  end
  return bot, score
end

-- True when nothing speaks against a bot.
local function is_clear(bot)
  local at = HEAD_BYTES + tonumber(string.match(bot, '%d+$')) * ROW_BYTES
  local raw = redis.call('GETRANGE', health, at, at + ROW_BYTES - 1)
  local row = { struct.unpack(ROW_FORMAT, raw .. string.rep('\0', ROW_BYTES - #raw)) }
  local evidence = row[EVIDENCE + ERRORS] + row[EVIDENCE + AVOIDS] + row[EVIDENCE + SLOWNESS]
  return evidence == 0 and not redis.call('ZSCORE', probation, bot)
end

-- The least loaded bot that has not had the task, preferably one against which nothing speaks.
local function another_bot()
  local found, found_score, least = '', OUT, '-inf'
  local _, had = string.gsub(besides, '|', '')
  for _ = 1, LOADS do
    local some = redis.call('ZRANGEBYSCORE', bots, least, OUT / 2, 'WITHSCORES', 'LIMIT', 0, LOOKED_AT + had)
    least = nil
    for i = 1, #some, 2 do
      local bot, score = some[i], tonumber(some[i + 1])
      if score % UNIT > now_ms then
        least = string.format('%.0f', (math.floor(score / UNIT) + 1) * UNIT)
        break
      end
      if is_wanted(bot) then
        if is_clear(bot) then return bot, score end
        if found == '' then
          found, found_score = bot, score
        end
      end
    end
    if not least then break end
  end
  if found == '' then return anybody() end
  return found, found_score
end

-- The least loaded of the bots that were drawn, those whose turn is in the future last; without a score: no bots at all.
local function one_among()
  local found, found_score, is_later = '', OUT, true
  for bot in string.gmatch(among, '[^|]+') do
    local score = is_wanted(bot) and tonumber(redis.call('ZSCORE', bots, bot) or OUT) or OUT
    if score < OUT / 2 then
      local later = score % UNIT > now_ms
      if found == '' or (is_later and not later) or (is_later == later and score < found_score) then
        found, found_score, is_later = bot, score, later
      end
    end
  end
  if found == '' and redis.call('EXISTS', bots) == 0 then return '', nil end
  return found, found_score
end

-- Choose a bot; its code is not 1 when there is none.
local function choose()
  local bot, score = (among ~= '' and one_among or besides == '' and next_bot or another_bot)()
  if score == nil then return -1 end
  if score >= OUT / 2 then return -2 end
  if has_special and besides == '' and among == '' and redis.call('EXISTS', specialists) == 1 then
    bot, score = or_specialist(bot, score)
  end
  local is_tried = has_special and tonumber(trial_tasks) > 0 and redis.call('ZSCORE', probation, bot)
  return 1, bot, score, is_tried and later_ms(score) or now_ms
end

local lease_ends = string.format('%.0f', now_us + lease_us)

-- Note who has a task's bot.
local function lease(i, bot)
  answers[i] = '1|' .. bot
  leased[#leased + 1], leased[#leased + 2] = lease_ends, bot .. '|' .. ARGV[TOKENS + i]
end

-- Check one bot out. The claim is asked for only where it may be there: when there is no bot to be had, or it cannot be made.
local function check_out(i)
  local token = ARGV[TOKENS + i]
  if avoid ~= '' then set_aside(token) end
  local code, bot, score, at_ms = choose()
  if code ~= 1 or redis.call('HSETNX', claims, token, bot) == 0 then
    bot = redis.call('HGET', claims, token)
    if not bot then
      answers[i] = code .. '|'
      return
    end
  else
    redis.call('ZADD', bots, string.format('%.0f', (math.floor(score / UNIT) + 1) * UNIT + at_ms), bot)
  end
  lease(i, bot)
end

-- The first bots in the order, as many as there are tasks, each with its score; nil: not only load and turn count.
local function first_bots(wanted)
  local found, order = redis.call('ZRANGEBYSCORE', bots, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, wanted), {}
  for k = 1, #found, 2 do
    local score = tonumber(found[k + 1])
    if score >= OUT / 2 or score % UNIT > now_ms then return nil end
    order[#order + 1] = { found[k], score }
  end
  return #order > 0 and order or nil
end

-- Check out bots for tasks that have no claim yet, with the commands of one: the first of the order takes the next task, and
-- then its place with one task more. No other bot can come before the first `#of_tasks`; false: one by one, please.
local function check_out_together(of_tasks)
  local order, seen = first_bots(#of_tasks), {}
  for _, i in ipairs(of_tasks) do
    if seen[ARGV[TOKENS + i]] then return false end
    seen[ARGV[TOKENS + i]] = true
  end
  if not order then return false end
  local claimed, scores, written = {}, {}, {}
  for _, i in ipairs(of_tasks) do
    local first = table.remove(order, 1)
    local bot, score = first[1], (math.floor(first[2] / UNIT) + 1) * UNIT + now_ms
    local at = #order + 1
    while at > 1 and (order[at - 1][2] > score or order[at - 1][2] == score and order[at - 1][1] > bot) do at = at - 1 end
    table.insert(order, at, { bot, score })
    claimed[#claimed + 1], claimed[#claimed + 2] = ARGV[TOKENS + i], bot
    scores[bot] = score
    lease(i, bot)
  end
  for bot, score in pairs(scores) do written[#written + 1], written[#written + 2] = string.format('%.0f', score), bot end
  redis.call('ZADD', bots, unpack(written))
  redis.call('HSET', claims, unpack(claimed))
  return true
end

-- The tasks that need a bot: those without a result.
local function unfinished()
  local needy, stored = {}, redis.call('MGET', unpack(KEYS, RESULTS + 1))
  for i = 1, tasks do
    local is_over = stored[i] and string.sub(stored[i], 2, #WITHDRAWN + 1) ~= WITHDRAWN
    if stored[i] and not is_over then redis.call('DEL', KEYS[RESULTS + i]) end
    if is_over then answers[i] = '0|' else needy[#needy + 1] = i end
  end
  return needy
end

-- Those of the tasks whose token has no claim; the others get the bot that they have.
local function unclaimed(needy)
  local found, tokens = {}, {}
  for k, i in ipairs(needy) do tokens[k] = ARGV[TOKENS + i] end
  for k, bot in ipairs(redis.call('HMGET', claims, unpack(tokens))) do
    if bot then lease(needy[k], bot) else found[#found + 1] = needy[k] end
  end
  return found
end

local needy = unfinished()
if is_plain and #needy > 1 then needy = unclaimed(needy) end
if not (is_plain and #needy > 1 and check_out_together(needy)) then
  for _, i in ipairs(needy) do check_out(i) end
end
if #leased > 0 then redis.call('ZADD', leases, unpack(leased)) end
if #leased > 0 and may_be_first or now_us % 16 == 0 then  -- the first one made the keys
  redis.call('EXPIRE', leases, life_s)
  redis.call('EXPIRE', claims, life_s)
end
if now_us % 16 == 0 then  -- these had a life when they were made
  redis.call('EXPIRE', bots, life_s)
  redis.call('EXPIRE', quarantined, life_s)
  redis.call('EXPIRE', reasons, life_s)
end
return tasks == 1 and answers[1] or answers
