-- Counts the places that a list lacks of what is in its flows, and puts them there if that is meant. O(flows looked at), and
-- where places lack O(their messages) too.
--
-- KEYS  list      of one priority of a queue
-- ARGV  fair      what the keys of flows begin with, see flows.py
--       most      flows to look at (count); of more, what is counted is less than there is
--       is_meant  '1': put them there; '0': count, where what was withdrawn a moment ago may count as well
-- Reply number of places
--
-- The list may hold messages of its own, so that it lacks more than is counted: that shows as they are taken. Never is a
-- place put there for which there is no message: what was withdrawn from a flow is removed from it first.
local GONE = 'withdrawn'
local list = KEYS[LIST]
local fair, most, is_meant = unpack(ARGV)
local flows = redis.call('ZRANGE', fair .. 'ring:' .. list, 0, most - 1)
local olds = redis.call('SRANDMEMBER', fair .. 'olds:' .. list, most)

local function each_part(visit)
  for _, flow in ipairs(flows) do visit(fair .. 'flow:' .. flow .. ':' .. list) end
  for _, flow in ipairs(olds) do visit(fair .. 'old:' .. flow .. ':' .. list) end
end

local function lacking()
  local waiting = 0
  each_part(function(key) waiting = waiting + redis.call('LLEN', key) end)
  return math.max(0, waiting - redis.call('LLEN', list))
end

local count = lacking()
if count == 0 or is_meant ~= '1' then return count end
each_part(function(key) redis.call('LREM', key, 0, GONE) end)
count = lacking()
for _ = 1, count do redis.call('LPUSH', list, GONE) end
return count
