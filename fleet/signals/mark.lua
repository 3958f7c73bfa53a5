-- Leaves a fleet's mark in its Redis, and tells the marks of other fleets that are alive. O(fleets).
--
-- KEYS  fleets   hash: digest of a fleet's pools -> Redis time of its last mark (s), blank, what it says of itself
--                                                                                                 TTL: life_s
-- ARGV  fleet    digest of the fleet that asks
--       about    what it says of itself; '': it only looks
--       stale_s  age from which a mark is forgotten, s
--       life_s   s
-- Reply what each other fleet says of itself
local fleets = KEYS[FLEETS]
local fleet, about, stale_s, life_s = unpack(ARGV)
local now, others = tonumber(redis.call('TIME')[1]), {}
if about ~= '' then
  redis.call('HSET', fleets, fleet, now .. ' ' .. about)
  redis.call('EXPIRE', fleets, life_s)
end
local rows = redis.call('HGETALL', fleets)
for i = 1, #rows, 2 do
  local at, says = string.match(rows[i + 1], '^(%d+) (.*)$')
  if not at or now - at > tonumber(stale_s) then
    redis.call('HDEL', fleets, rows[i])
  elseif rows[i] ~= fleet then
    others[#others + 1] = says
  end
end
return others
