-- Takes the budgets of runs away that nobody has filled or used for long: the runs were left, and go on when they are resumed.
--
-- KEYS     live     hash: scope -> what was set while the fleet runs, see reserve.lua
--          shares   sorted set of runs: scope -> used share of its fullest budget, see reserve.lua
--          spent    of each scope, see budget.lua
-- ARGV     least_s  life in seconds that what a scope has spent still has where it is in use
--          names    of the scopes, in the order of their keys
-- Reply    the number that were taken away
local taken = 0
for k = 1, #ARGV - NAMES do
  if redis.call('TTL', KEYS[SPENT + k]) < ARGV[LEAST_S] + 0 then
    taken = taken + redis.call('HDEL', KEYS[LIVE], ARGV[NAMES + k])
    redis.call('ZREM', KEYS[SHARES], ARGV[NAMES + k])
  end
end
return taken
