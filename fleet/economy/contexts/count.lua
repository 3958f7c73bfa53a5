-- Counts what calls with documents have read from providers' caches.
--
-- KEYS  reads    hash of ten minutes: document|what|LIMIT -> calls    TTL life_s
-- ARGV  life_s
--       pairs*   field, and how many more
-- Reply how many fields
local reads = KEYS[READS]
for i = PAIRS + 1, #ARGV, 2 do
  redis.call('HINCRBY', reads, ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', reads, ARGV[LIFE_S])
return (#ARGV - PAIRS) / 2
