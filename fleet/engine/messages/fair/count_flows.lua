-- Counts what waits in each flow of some lists. O(flows).
--
-- KEYS  lists   each of one priority of a queue
-- ARGV  fair    what the keys of flows begin with, see flows.py
--       most    flows of a list to look at, those whose turns are next (count)
-- Reply for each list: flows in all, then triples: flow, messages in it, key of the list where its next one is the last
--
-- The keys of flows are named by list, not declared: the broker is one Redis, never a cluster.
local fair, most = unpack(ARGV)
local reply = {}

for i = LISTS + 1, #KEYS do
  local list = KEYS[i]
  local ring = fair .. 'ring:' .. list
  local told = { redis.call('ZCARD', ring) }
  for _, flow in ipairs(redis.call('ZRANGE', ring, 0, most - 1)) do
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
