-- Make the bots of a pool those that are configured: add the missing, drop the others, leave the rest as they are.
--
-- A dropped bot takes no new task from now on; the task it has runs to its end, its check-in then finds nothing to
-- lower. A bot that comes back starts with the load of the leases it still has, and stays quarantined if it was; a
-- place that says quarantined where no quarantine is known (its keys were lost) is put right. O(bots + leases): for
-- starts only.
--
-- KEYS  bots         sorted set: bot -> load * UNIT + ms of the last checkout, plus OUT while quarantined   TTL: life_s
--       leases       sorted set: bot|token -> expiry, us of Redis time; only read
--       quarantined  sorted set: bot -> end of its quarantine, us of Redis time; only read
-- ARGV  life_s       life of the sorted set, s
--       names        of the configured bots (10,000 at most)
-- Reply {added, dropped}
local bots, leases, quarantined = unpack(KEYS)

local load_of = {}
for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local bot = string.match(member, '^[^|]+')
  load_of[bot] = (load_of[bot] or 0) + 1
end

local is_out = {}
for _, bot in ipairs(redis.call('ZRANGE', quarantined, 0, -1)) do
  is_out[bot] = true
end

local present = {}
local scores = redis.call('ZRANGE', bots, 0, -1, 'WITHSCORES')
for i = 1, #scores, 2 do
  local bot, score = scores[i], tonumber(scores[i + 1])
  present[bot] = true
  if score >= OUT / 2 and not is_out[bot] then
    redis.call('ZADD', bots, string.format('%.0f', math.max(0, score - OUT)), bot)
  end
end

local added, dropped = 0, 0
local wanted = {}
for i = NAMES + 1, #ARGV do
  local bot = ARGV[i]
  wanted[bot] = true
  if not present[bot] then
    redis.call('ZADD', bots, string.format('%.0f', (load_of[bot] or 0) * UNIT + (is_out[bot] and OUT or 0)), bot)
    added = added + 1
  end
end
for bot in pairs(present) do
  if not wanted[bot] then
    redis.call('ZREM', bots, bot)
    dropped = dropped + 1
  end
end
redis.call('EXPIRE', bots, ARGV[LIFE_S])
return { added, dropped }
