-- Check out the least-loaded bot of a pool; among equal loads the one whose last checkout is longest ago.
--
-- Nothing is checked out for a task that has a result already. The same token again answers the same bot.
-- Expired leases are reaped first, a bounded number per call: their holders died, so their bots' loads go down; so are
-- quarantines that are over. A quarantined bot's score has `out` added, so it comes after all others and is not taken.
-- Who comes out of a quarantine by its health is on probation: with each task its place is put four turns into the future,
-- and until then its turns go to others.
-- A share of the tasks of a class goes to a specialist of it, drawn by Thompson sampling among three of them and the bot
-- whose turn it is (Thompson 1933; by reward over cost as in Xia et al., "Thompson Sampling for Budgeted Multi-armed
-- Bandits", 2015; normal posteriors): who has turns, keeps learning, and nobody loses more than that share.
-- For a second opinion other bots than those who had the task are looked for, and first of all unsuspected ones.
--
-- KEYS  1 result  string: the task's result; only read
--       2 bots    sorted set: bot -> load * unit + ms of the last checkout   TTL of this and all below: ARGV 5
--       3 leases  sorted set: bot|token -> expiry, us of Redis time
--       4 claims  hash: token -> bot
--       5 quarantined  sorted set: bot -> end of its quarantine, us of Redis time
--       6 reasons      hash: bot -> us of Redis time|who|why of its quarantine
--       7 probation    sorted set: bot -> tasks that it still has to do well
--       8 health       string: evidence against each bot, see health.lua; only read
--       9 skills, 10 specialists   of the task's class, see skill.lua; only read
-- ARGV  1 token  2 life of the lease, us  3 one unit of load  4 first ms of the clock  5 life of the keys, s
--       6 expired leases and quarantines reaped at most  7 out  8 tasks of a probation (0: none)
--       9 "|bot|bot|" that have worked on the task already ('': none)  10 share of tasks for specialists
-- Reply "code|bot" (an array would be a send of its own from Redis 6, even in a pipeline)
-- Codes 1 checked out;  without a bot: 0 the task has a result, -1 the pool has no bots, -2 all of its bots are
--       quarantined, or there is no other

local result, bots, leases, claims = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, lease_us, unit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local clock_start_ms, life_s, reap_most = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local quarantined, reasons, out = KEYS[5], KEYS[6], tonumber(ARGV[7])
local probation, health, skills, specialists, besides = KEYS[7], KEYS[8], KEYS[9], KEYS[10], ARGV[9]
-- Bots looked at, at most, for one that is not suspected. Longest way of a bot on probation into the future.
local LOOKED_AT, MOST_LATER_MS = 8, 600000

if redis.call('EXISTS', result) == 1 then
  return '0|'
end

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000) - clock_start_ms

for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', now_us), 'LIMIT', 0, reap_most)) do
  local bot, held_by = string.match(member, '^([^|]+)|(.*)$')
  redis.call('ZREM', leases, member)
  redis.call('HDEL', claims, held_by)
  local score = redis.call('ZSCORE', bots, bot)
  if score and tonumber(score) >= unit then
    redis.call('ZINCRBY', bots, string.format('%.0f', -unit), bot)
  end
end

for _, over in ipairs(redis.call('ZRANGEBYSCORE', quarantined, '-inf', string.format('%.0f', now_us), 'LIMIT', 0, reap_most)) do
  if tonumber(ARGV[8]) > 0 and string.match(redis.call('HGET', reasons, over) or '', '^%d+|health|') then
    redis.call('ZADD', probation, ARGV[8], over)
    redis.call('EXPIRE', probation, life_s)
  end
  release({ bots, quarantined, reasons }, { over, ARGV[7] })
end

-- The first bot from a score on whose place is not in the future, and its score. Where the first of a load has its place
-- in the future, all of that load have.
local function first_from(least)
  while true do
    local first = redis.call('ZRANGEBYSCORE', bots, least, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local score = tonumber(first[2])
    if not score or score >= out / 2 or score % unit <= now_ms then
      return first[1], score
    end
    least = string.format('%.0f', (math.floor(score / unit) + 1) * unit)
  end
end

-- The bot whose turn it is, and its score; when nobody else is there, one whose turn is in the future.
local function next_bot()
  local bot, score = first_from('-inf')
  if not score or score >= out / 2 then
    local first = redis.call('ZRANGE', bots, 0, 0, 'WITHSCORES')
    return first[1], tonumber(first[2])
  end
  return bot, score
end

-- Where a bot on probation stands after this task: four turns from now. A turn is as long as the next one's has been.
local function later_ms(score)
  local _, next_score = first_from('(' .. string.format('%.0f', score))
  local since_ms = next_score and next_score < out / 2 and next_score % unit or 0
  return now_ms + (since_ms > 0 and math.min(MOST_LATER_MS, 4 * (now_ms - since_ms)) or 0)
end

-- A draw of a bot's good answers per cost: what is not known yet may be anything.
local function draw_skill(bot)
  local at = tonumber(string.match(bot, '%d+$')) * 16
  local raw = redis.call('GETRANGE', skills, at, at + 15)
  local good, bad, costs = 0, 0, 0
  if #raw == 16 then
    good, bad, costs = struct.unpack('<fff', raw)
  end
  local tasks = good + bad + 2
  local share = (good + 1) / tasks
  local normal = math.sqrt(-2 * math.log(1 - math.random())) * math.cos(2 * math.pi * math.random())
  return math.max(0, share + normal * math.sqrt(share * (1 - share) / (tasks + 1))) / math.max(1, costs / math.max(1, good + bad)), good + bad > 0
end

-- A specialist, if one is drawn and has hardly more to do than `bot`, whose turn it is; else that one.
local function or_specialist(bot, score)
  math.randomseed(now_us % 2147483647)
  if math.random() >= tonumber(ARGV[10]) then
    return bot, score
  end
  local best, is_known = draw_skill(bot)
  for _, name in ipairs(redis.call('ZRANDMEMBER', specialists, 3)) do
    local drawn, is_practised = draw_skill(name)
    local its_score = tonumber(redis.call('ZSCORE', bots, name) or out)
    local is_free = its_score < out / 2 and math.floor(its_score / unit) <= math.floor(score / unit) + 1
    if is_known and is_practised and is_free and name ~= bot and drawn > best and not redis.call('ZSCORE', probation, name) then
      bot, score, best = name, its_score, drawn
    end
  end
  return bot, score
end

-- The least loaded bot that has not had the task, preferably one against which nothing speaks.
local function another_bot()
  local found, found_score = '', out
  local first = redis.call('ZRANGE', bots, 0, LOOKED_AT - 1, 'WITHSCORES')
  for i = 1, #first, 2 do
    local bot, score = first[i], tonumber(first[i + 1])
    if score < out / 2 and not string.find(besides, '|' .. bot .. '|', 1, true) then
      local at = 128 + tonumber(string.match(bot, '%d+$')) * 24
      local evidence = redis.call('GETRANGE', health, at, at + 11)
      if not string.find(evidence, '[^%z]') and not redis.call('ZSCORE', probation, bot) then
        return bot, score
      end
      if found == '' then
        found, found_score = bot, score
      end
    end
  end
  return found, found_score
end

local bot = redis.call('HGET', claims, token)
if not bot then
  local score
  bot, score = (besides == '' and next_bot or another_bot)()
  if score == nil then
    return '-1|'
  end
  if score >= out / 2 then
    return '-2|'
  end
  if besides == '' and redis.call('EXISTS', specialists) == 1 then
    bot, score = or_specialist(bot, score)
  end
  local at_ms = tonumber(ARGV[8]) > 0 and redis.call('ZSCORE', probation, bot) and later_ms(score) or now_ms
  redis.call('ZADD', bots, string.format('%.0f', (math.floor(score / unit) + 1) * unit + at_ms), bot)
  redis.call('HSET', claims, token, bot)
end
redis.call('ZADD', leases, string.format('%.0f', now_us + lease_us), bot .. '|' .. token)
redis.call('EXPIRE', leases, life_s)
redis.call('EXPIRE', claims, life_s)
if now_us % 16 == 0 then  -- these had a life when they were made
  redis.call('EXPIRE', bots, life_s)
  redis.call('EXPIRE', quarantined, life_s)
  redis.call('EXPIRE', reasons, life_s)
end
return '1|' .. bot
