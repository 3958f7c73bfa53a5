-- Make the bots of a pool those that are configured: add the missing, drop the others, leave the rest as they are.
--
-- A dropped bot takes no new task from now on; the task it has runs to its end, its check-in then finds nothing to
-- lower. A bot that comes back starts with the load of the leases it still has. O(bots + leases): for starts only.
--
-- KEYS  1 bots    sorted set: bot -> load * unit + ms of the last checkout   TTL: ARGV 2
--       2 leases  sorted set: bot|token -> expiry, us of Redis time
-- ARGV  1 one unit of load  2 life of the sorted set, s  3.. names of the configured bots (10,000 at most)
-- Reply {added, dropped}

local bots, leases = KEYS[1], KEYS[2]
local unit, life_s = tonumber(ARGV[1]), ARGV[2]

local load_of = {}
for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local bot = string.match(member, '^[^|]+')
  load_of[bot] = (load_of[bot] or 0) + 1
end

local present = {}
for _, bot in ipairs(redis.call('ZRANGE', bots, 0, -1)) do
  present[bot] = true
end

local added, dropped = 0, 0
local wanted = {}
for index = 3, #ARGV do
  local bot = ARGV[index]
  wanted[bot] = true
  if not present[bot] then
    redis.call('ZADD', bots, string.format('%.0f', (load_of[bot] or 0) * unit), bot)
    added = added + 1
  end
end
for bot in pairs(present) do
  if not wanted[bot] then
    redis.call('ZREM', bots, bot)
    dropped = dropped + 1
  end
end
redis.call('EXPIRE', bots, life_s)
return { added, dropped }
