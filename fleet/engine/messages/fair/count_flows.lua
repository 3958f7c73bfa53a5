-- Counts what waits in some flows of some lists. O(flows).
--
-- KEYS  lists   each of one priority of a queue
-- ARGV  fair    what the keys of flows begin with, see flows.py
--       turns   for each list the first and the last turn to look at, 0: the next one
-- Reply for each list triples: flow, messages in it, key of the list where its next one is the last
--
-- The keys of flows are named by list, not declared: the broker is one Redis, never a cluster.
local fair = ARGV[FAIR]
local reply = {}

for i = LISTS + 1, #KEYS do
  local list, turn = KEYS[i], TURNS + 2 * (i - LISTS) - 1
  local told = {}
  for _, flow in ipairs(redis.call('ZRANGE', fair .. 'ring:' .. list, ARGV[turn], ARGV[turn + 1])) do
    local old, key = fair .. 'old:' .. flow .. ':' .. list, fair .. 'flow:' .. flow .. ':' .. list
    local before = redis.call('LLEN', old)
    local count = before + redis.call('LLEN', key)
    if count > 0 then
      told[#told + 1], told[#told + 2], told[#told + 3] = flow, count, before > 0 and old or key
    end
  end
  reply[#reply + 1] = told
end
return reply
