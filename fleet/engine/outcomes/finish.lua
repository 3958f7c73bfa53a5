-- Finish a task exactly once: store its result, wake who waits for it, count it, judge its bots and check them in.
-- O(log bots).
--
-- The first result of a task stands. A later one is only counted as such, and its bots checked in; the very same
-- result again (its first reply was lost) counts nothing.
--
-- KEYS  1 result       string: JSON as Celery's Redis backend stores it; also the channel   TTL: ARGV 2
--       2 totals       hash: counter -> integer                    TTL of this and of 3: ARGV 3
--       3 errors       hash: bot|provider/model|type -> count
--       4 bots         sorted set: bot -> load * unit + ms of the last checkout
--       5 leases       sorted set: bot|token -> expiry, us of Redis time
--       6 claims       hash: token -> bot
--       7 to 13        KEYS of record.lua
--       14 to 21       health, norms, quarantined, reasons, probation, quiet, skills, specialists: the other KEYS of
--                      health.lua
--       22 index       sorted set: delivery tag -> last renewal; only when a fence is given
--       last 6       KEYS of record_dead_letter.lua, when there is a dead letter
-- ARGV  1 result JSON  2 life of the result, s  3 life of the counters, s  4 "bot|token" of all checkouts, a line each
--       5 one unit of load  6 name of the counter of later results
--       7 fence: delivery tag of the task's message ('': no fence)  8 name of the counter of fenced results
--       9 number m of spent  10 number n of earned  11 number d of ARGV of record_dead_letter.lua (0: no dead letter)
--       12 to 19  ARGV 2 to 9 of record.lua  20 to 28  ARGV of health.lua (20 '': nobody is judged)  29.. these d
--       29+d.. m pairs counter, amount: counted also when the result is discarded; then n pairs counter, amount,
--       the first of them the counter of results;
--       then pairs errors-field, amount
-- Reply code (one digit), then the reply of health.lua if anybody was judged
-- Codes 1 this result stands, 0 the task has another one, 2 fenced: the message's lease was lost

local result, totals, errors = KEYS[1], KEYS[2], KEYS[3]
local bots, leases, claims = KEYS[4], KEYS[5], KEYS[6]
local payload, result_life_s, life_s = ARGV[1], ARGV[2], ARGV[3]
local unit, later_counter, fence, fenced_counter = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local dead = tonumber(ARGV[11])
local spent_end = 28 + dead + 2 * tonumber(ARGV[9])
local earned_end = spent_end + 2 * tonumber(ARGV[10])

local stored = redis.call('GET', result)

for bot, token in string.gmatch(ARGV[4], '([^|\n]+)|([^\n]+)') do
  if redis.call('ZREM', leases, bot .. '|' .. token) == 1 then
    redis.call('HDEL', claims, token)
    local score = redis.call('ZSCORE', bots, bot)
    if score and tonumber(score) >= unit then
      redis.call('ZINCRBY', bots, string.format('%.0f', -unit), bot)
    end
  end
end

if stored == payload then
  return '1'
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

local fenced = not stored and fence ~= '' and not redis.call('ZSCORE', KEYS[22], fence)
local is_new = count(29 + dead, spent_end, totals)
local nth, judged = 0, ''
if stored or fenced then
  is_new = redis.call('HINCRBY', totals, fenced and fenced_counter or later_counter, 1) == 1 or is_new
else
  redis.call('SET', result, payload, 'EX', result_life_s)
  redis.call('PUBLISH', result, payload)
  nth = redis.call('HINCRBY', totals, ARGV[spent_end + 1], 1)
  is_new = count(spent_end + 3, earned_end, totals) or nth == 1 or is_new
  keep(errors, count(earned_end + 1, #ARGV, errors))
  if dead > 0 then
    record_dead_letter({ unpack(KEYS, #KEYS - 5) }, { unpack(ARGV, 29, 28 + dead) })
  end
  if ARGV[20] ~= '' then
    local names = { KEYS[14], KEYS[15], bots, KEYS[16], KEYS[17], KEYS[18], KEYS[13], unpack(KEYS, 19, 21) }
    judged = health(names, { unpack(ARGV, 20, 28) })
  end
end
local is_new_minute = record({ unpack(KEYS, 7, 13) }, { nth, unpack(ARGV, 12, 19) }) == 1
keep(totals, is_new or is_new_minute)
keep(errors, is_new_minute)
return (fenced and '2' or (stored and '0' or '1')) .. judged
