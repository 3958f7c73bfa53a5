-- Learn how well and how cheaply a bot does one class of tasks, and list it as a specialist while it is significantly
-- better than its pool. O(log specialists). A function inside `health.lua`.
--
-- What counts is good answers per cost: the lower bound of a bot's share of good answers over the upper bound of its mean
-- cost (normal ones; they are used from ten tasks on), against the class's own.
--
-- KEYS  skills       string: a packed row per bot; all of it fades                            TTL of both: life_s
--       specialists  sorted set: bot -> lower bound of its good answers per cost, over the class's
-- ARGV  number       of the bot
--       bot          its name
--       did_well     1, or 0
--       cost         of the task (any unit)
--       class_good   good tasks of the class
--       class_bad    and bad ones (both fade)
--       class_cost   mean cost of a task of the class
--       life_s       life of the keys, s
-- Reply none
local skills, specialists = unpack(KEYS)
local number, bot, did_well, cost, class_good, class_bad, class_cost, life_s = unpack(ARGV)
-- What a task counts after the next one: some 200 tasks are remembered.
local FADE = 0.995
-- Tasks before a bot can be a specialist; one-sided 99%; how much better it has to be.
local LEAST, SURE, BETTER = 10, 2.33, 1.05

local at = number * SKILL_BYTES
local raw = redis.call('GETRANGE', skills, at, at + SKILL_BYTES - 1)
local good, bad, costs, squares = 0, 0, 0, 0
if #raw == SKILL_BYTES then
  good, bad, costs, squares = struct.unpack(SKILL_FORMAT, raw)
end
local is_new = good + bad == 0
good, bad = good * FADE + did_well, bad * FADE + 1 - did_well
costs, squares = costs * FADE + cost, squares * FADE + cost * cost
redis.call('SETRANGE', skills, at, struct.pack(SKILL_FORMAT, good, bad, costs, squares))

local tasks, share = good + bad, good / (good + bad)
local least = share - SURE * math.sqrt(math.max(share * (1 - share), 1 / tasks) / tasks)
local mean = costs / tasks
local most_cost = math.max(1, mean + SURE * math.sqrt(math.max(0, squares / tasks - mean * mean) / tasks))
local usual = (class_good + 1) / (class_good + class_bad + 2) / math.max(1, class_cost)
local ratio = least / most_cost / usual
if tasks >= LEAST and ratio > BETTER then
  if redis.call('ZADD', specialists, string.format('%.4f', ratio), bot) == 1 then
    redis.call('EXPIRE', specialists, life_s)
  end
else
  redis.call('ZREM', specialists, bot)
end
if is_new then
  redis.call('EXPIRE', skills, life_s)
end
