-- Finish a task exactly once: store its result, wake who waits for it, count it and check its bot in. O(log bots).
--
-- The first result of a task stands. A later one is only counted as such, and its bot checked in; the very same
-- result again (its first reply was lost) counts nothing.
--
-- KEYS  1 result       string: JSON as Celery's Redis backend stores it; also the channel   TTL: ARGV 2
--       2 totals       hash: counter -> integer                    TTL of this and of 3: ARGV 3
--       3 errors       hash: bot|provider/model|type -> count
--       4 bots         sorted set: bot -> load * unit + ms of the last checkout
--       5 leases       sorted set: bot|token -> expiry, us of Redis time
--       6 claims       hash: token -> bot
--       7 to 13        KEYS of record.lua
--       14 index       sorted set: delivery tag -> last renewal; only when a fence is given
--       last 6       KEYS of record_dead_letter.lua, when there is a dead letter
-- ARGV  1 result JSON  2 life of the result, s  3 life of the counters, s  4 bot ('-': none)
--       5 token ('': no bot is checked out)  6 one unit of load  7 name of the counter of later results
--       8 fence: delivery tag of the task's message ('': no fence)  9 name of the counter of fenced results
--       10 number m of spent  11 number n of earned
--       12 number d of ARGV of record_dead_letter.lua (0: no dead letter)
--       13 to 19  ARGV 2 to 8 of record.lua  20.. these d
--       20+d.. m pairs counter, amount: counted also when the result is discarded; then n pairs counter, amount,
--       the first of them the counter of results;
--       then pairs errors-field, amount
-- Reply 1 this result stands, 0 the task has another one, 2 fenced: the message's lease was lost

local result, totals, errors = KEYS[1], KEYS[2], KEYS[3]
local bots, leases, claims = KEYS[4], KEYS[5], KEYS[6]
local payload, result_life_s, life_s = ARGV[1], ARGV[2], ARGV[3]
local bot, token, unit = ARGV[4], ARGV[5], tonumber(ARGV[6])
local later_counter, fence, fenced_counter = ARGV[7], ARGV[8], ARGV[9]
local dead = tonumber(ARGV[12])
local spent_end = 19 + dead + 2 * tonumber(ARGV[10])
local earned_end = spent_end + 2 * tonumber(ARGV[11])

local stored = redis.call('GET', result)

if token ~= '' and redis.call('ZREM', leases, bot .. '|' .. token) == 1 then
  redis.call('HDEL', claims, token)
  local score = redis.call('ZSCORE', bots, bot)
  if score and tonumber(score) >= unit then
    redis.call('ZINCRBY', bots, string.format('%.0f', -unit), bot)
  end
end

if stored == payload then
  return 1
end
local function count(from, to, hash)
  local is_new = false
  for i = from, to, 2 do
    is_new = redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) == tonumber(ARGV[i + 1]) or is_new
  end
  return is_new
end
-- A key's life is pushed when it may be new, and once a minute: not with every task.
local function keep(hash, is_new)
  if is_new then redis.call('EXPIRE', hash, life_s) end
end

local fenced = not stored and fence ~= '' and not redis.call('ZSCORE', KEYS[14], fence)
local is_new = count(20 + dead, spent_end, totals)
local nth = 0
if stored or fenced then
  is_new = redis.call('HINCRBY', totals, fenced and fenced_counter or later_counter, 1) == 1 or is_new
else
  redis.call('SET', result, payload, 'EX', result_life_s)
  redis.call('PUBLISH', result, payload)
  nth = redis.call('HINCRBY', totals, ARGV[spent_end + 1], 1)
  is_new = count(spent_end + 3, earned_end, totals) or nth == 1 or is_new
  keep(errors, count(earned_end + 1, #ARGV, errors))
  if dead > 0 then
    record_dead_letter({ unpack(KEYS, #KEYS - 5) }, { unpack(ARGV, 20, 19 + dead) })
  end
end
local is_new_minute = record({ unpack(KEYS, 7, 13) }, { nth, unpack(ARGV, 13, 19) }) == 1
keep(totals, is_new or is_new_minute)
keep(errors, is_new_minute)
return fenced and 2 or (stored and 0 or 1)
