-- Finish a task exactly once: store its result, wake who waits for it, count it and check its bot in. O(log bots).
--
-- The first result of a task stands. A later one is only counted as such, and its bot checked in; the very same
-- result again (its first reply was lost) counts nothing.
--
-- KEYS  1 result       string: JSON as Celery's Redis backend stores it; also the channel   TTL: ARGV 2
--       2 totals       hash: counter -> integer                    TTL of this and of 3, 4: ARGV 3
--       3 completions  hash: bot -> completions
--       4 errors       hash: bot|provider/model|type -> count
--       5 bots         sorted set: bot -> load * unit + ms of the last checkout
--       6 leases       sorted set: bot|token -> expiry, us of Redis time
--       7 claims       hash: token -> bot
--       8 index        sorted set: delivery tag -> last renewal; read only when a fence is given
--       last 6       KEYS of record_dead_letter.lua, when there is a dead letter
-- ARGV  1 result JSON  2 life of the result, s  3 life of the counters, s  4 bot ('-': none)
--       5 token ('': no bot is checked out)  6 one unit of load  7 name of the counter of later results
--       8 fence: delivery tag of the task's message ('': no fence)  9 name of the counter of fenced results
--       10 number m of spent  11 number n of earned
--       12 number d of ARGV of record_dead_letter.lua (0: no dead letter)  13.. these d
--       13+d.. m pairs counter, amount: counted also when the result is discarded; then n pairs counter, amount;
--       then pairs errors-field, amount
-- Reply 1 this result stands, 0 the task has another one, 2 fenced: the message's lease was lost

local result, totals, completions, errors = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local bots, leases, claims = KEYS[5], KEYS[6], KEYS[7]
local payload, result_life_s, life_s = ARGV[1], ARGV[2], ARGV[3]
local bot, token, unit = ARGV[4], ARGV[5], tonumber(ARGV[6])
local later_counter, fence, fenced_counter = ARGV[7], ARGV[8], ARGV[9]
local dead = tonumber(ARGV[12])
local spent_end = 12 + dead + 2 * tonumber(ARGV[10])
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
  for i = from, to, 2 do redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1]) end
end

local fenced = not stored and fence ~= '' and not redis.call('ZSCORE', KEYS[8], fence)
count(13 + dead, spent_end, totals)
redis.call('EXPIRE', totals, life_s)
if stored or fenced then
  redis.call('HINCRBY', totals, fenced and fenced_counter or later_counter, 1)
  return fenced and 2 or 0
end

redis.call('SET', result, payload, 'EX', result_life_s)
redis.call('PUBLISH', result, payload)
count(spent_end + 1, earned_end, totals)
redis.call('HINCRBY', completions, bot, 1)
count(earned_end + 1, #ARGV, errors)
redis.call('EXPIRE', completions, life_s)
redis.call('EXPIRE', errors, life_s)
if dead > 0 then
  record_dead_letter({ unpack(KEYS, #KEYS - 5) }, { unpack(ARGV, 13, 12 + dead) })
end
return 1
