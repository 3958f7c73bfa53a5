-- Counts what calls with documents have read from providers' caches.
--
-- KEYS  reads    hash of ten minutes: document|what|LIMIT -> calls, tokens, or 10^-12 dollars    TTL life_s
--       totals   hash: what -> the same, of all documents    TTL totals_life_s
-- ARGV  life_s, totals_life_s
--       pairs*   field, and how many more
-- Reply how many fields
local reads, totals = unpack(KEYS)
for i = PAIRS + 1, #ARGV, 2 do
  redis.call('HINCRBY', reads, ARGV[i], ARGV[i + 1])
  redis.call('HINCRBY', totals, string.match(ARGV[i], '|([^|]+)|'), ARGV[i + 1])
end
redis.call('EXPIRE', reads, ARGV[LIFE_S])
redis.call('EXPIRE', totals, ARGV[TOTALS_LIFE_S])
return (#ARGV - PAIRS) / 2
