-- Judge a bot by a canary, and count what that cost. O(1).
--
-- KEYS  1 totals  hash: counter -> integer   TTL: ARGV 5   2 to 11  KEYS of health.lua
-- ARGV  1 to 9  ARGV of health.lua   10.. pairs counter, amount
-- Reply that of health.lua
for i = 10, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return health({ unpack(KEYS, 2, 11) }, { unpack(ARGV, 1, 9) })
