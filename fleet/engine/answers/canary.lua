-- Judge a bot by a canary, and count what that cost. O(1).
--
-- KEYS  totals  hash: counter -> integer                              no TTL
--       health, norms, bots, quarantined, reasons, probation, events, quiet, skills, specialists   see health.lua
-- ARGV  samples, kind, pool, rules, life_s, quarantined_event, released_event, cap_event   see health.lua
--       counts  pairs counter, amount
-- Reply that of health.lua
for i = COUNTS + 1, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[TOTALS], ARGV[i], ARGV[i + 1])
end
local seconds, microseconds = unpack(redis.call('TIME'))
local now_us = seconds * 1000000 + microseconds
return health(
  {
    KEYS[HEALTH], KEYS[NORMS], KEYS[BOTS], KEYS[QUARANTINED], KEYS[REASONS], KEYS[PROBATION], KEYS[EVENTS], KEYS[QUIET],
    KEYS[SKILLS], KEYS[SPECIALISTS],
  }, {
    now_us, ARGV[SAMPLES], ARGV[KIND], ARGV[POOL], ARGV[RULES], ARGV[LIFE_S],
    ARGV[QUARANTINED_EVENT], ARGV[RELEASED_EVENT], ARGV[CAP_EVENT],
  })
