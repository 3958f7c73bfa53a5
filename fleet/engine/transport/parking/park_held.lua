-- Parks messages that a worker holds and whose time has not come by the clock of Redis: from lease to set in one step, so
-- that nobody need renew them and no death touches them. O(messages x log parked).
--
-- KEYS  unacked       hash: tag -> list key, newline, message
--       index         sorted set: tag -> time of the last lease renewal
--       parked, openings   see park.lua
-- ARGV  order_prefix  of the sorted sets beside the queues
--       separator     kombu's, in list keys
--       list_prefix   before queues, in list keys
--       reason        why they wait: a word
--       mark_prefix   of the keys of marks, see park.lua
--       messages      triples: tag, task id, opening time in s
-- Reply the tags that this worker does not hold any more: parked, or their lease was lost; the time of the others has come
--
-- The sets are named by queue, not declared: the broker is one Redis, never a cluster.
local unacked, index, parked, openings = unpack(KEYS)
local order_prefix, separator, list_prefix, reason, mark_prefix = unpack(ARGV)
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds + microseconds / 1000000
local gone = {}
for i = MESSAGES + 1, #ARGV, 3 do
  local tag, id, at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local held = redis.call('HGET', unacked, tag)
  if not held or tonumber(at) > now then gone[#gone + 1] = tag end
  if held and tonumber(at) > now then
    local cut = string.find(held, '\n', 1, true)
    local list, message = string.sub(held, 1, cut - 1), string.sub(held, cut + 1)
    local place = string.find(list, separator, 1, true)
    local queue = string.sub(list, #list_prefix + 1, place and place - 1 or -1)
    local order, entry = order_prefix .. queue, list .. '\n' .. reason .. '\n' .. message
    park({ parked, openings, order }, { queue, id, at, entry, mark_prefix })
    redis.call('HDEL', unacked, tag)
    redis.call('ZREM', index, tag)
  end
end
return gone
