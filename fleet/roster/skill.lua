-- Learn how well and how cheaply a bot does one class of tasks, and list it as a specialist while it is significantly
-- better than its pool. O(log specialists). A function inside the finishing script.
--
-- What counts is good answers per cost: the lower bound of a bot's share of good answers over the upper bound of its mean
-- cost (normal ones; they are used from ten tasks on), against the class's own.
--
-- KEYS  1 skills       string: 16 bytes per bot: 4 floats good, bad, sum of costs, of their squares; all fade   TTL: ARGV 8
--       2 specialists  sorted set: bot -> lower bound of its good answers per cost, over the class's      TTL: ARGV 8
-- ARGV  1 number of the bot  2 its name  3 1 it did well, 0 it did not  4 cost (any unit)
--       5, 6 good and bad of the class (both fade)  7 mean cost of a task of the class  8 life of the keys, s
-- Reply none
local skills, specialists = KEYS[1], KEYS[2]
local ROW, ROW_BYTES = '<ffff', 16
-- What a task counts after the next one: some 200 tasks are remembered.
local FADE = 0.995
-- Tasks before a bot can be a specialist; one-sided 99%; how much better it has to be.
local LEAST, SURE, BETTER = 10, 2.33, 1.05

local at = ARGV[1] * ROW_BYTES
local raw = redis.call('GETRANGE', skills, at, at + ROW_BYTES - 1)
local good, bad, costs, squares = 0, 0, 0, 0
if #raw == ROW_BYTES then
  good, bad, costs, squares = struct.unpack(ROW, raw)
end
local fresh = good + bad == 0
good, bad = good * FADE + ARGV[3], bad * FADE + 1 - ARGV[3]
costs, squares = costs * FADE + ARGV[4], squares * FADE + ARGV[4] * ARGV[4]
redis.call('SETRANGE', skills, at, struct.pack(ROW, good, bad, costs, squares))

local tasks, share = good + bad, good / (good + bad)
local least = share - SURE * math.sqrt(math.max(share * (1 - share), 1 / tasks) / tasks)
local mean = costs / tasks
local most_cost = math.max(1, mean + SURE * math.sqrt(math.max(0, squares / tasks - mean * mean) / tasks))
local usual = (ARGV[5] + 1) / (ARGV[5] + ARGV[6] + 2) / math.max(1, ARGV[7])
local ratio = least / most_cost / usual
if tasks >= LEAST and ratio > BETTER then
  if redis.call('ZADD', specialists, string.format('%.4f', ratio), ARGV[2]) == 1 then
    redis.call('EXPIRE', specialists, ARGV[8])
  end
else
  redis.call('ZREM', specialists, ARGV[2])
end
if fresh then
  redis.call('EXPIRE', skills, ARGV[8])
end
