-- Counts what calls of one beginning have taken on a lane, and read from the provider's cache.
--
-- KEYS  reads    hash of an hour: ROW|what -> count or tokens    TTL life_s
-- ARGV  life_s
--       most     rows that it may have; what is new beyond them is left out
--       rows*    name, calls, input, cached and written tokens
-- Reply how many rows were counted
local reads = KEYS[READS]
local life_s, most = unpack(ARGV)
local whats = { 'calls', 'input', 'cached', 'written' }
local known = redis.call('HLEN', reads) / #whats
local counted = 0
for i = ROWS + 1, #ARGV, #whats + 1 do
  local is_new = redis.call('HEXISTS', reads, ARGV[i] .. '|' .. whats[1]) == 0
  if not is_new or known < tonumber(most) then
    for place, what in ipairs(whats) do
      redis.call('HINCRBY', reads, ARGV[i] .. '|' .. what, ARGV[i + place])
    end
    known = known + (is_new and 1 or 0)
    counted = counted + 1
  end
end
if counted > 0 then redis.call('EXPIRE', reads, life_s) end
return counted
