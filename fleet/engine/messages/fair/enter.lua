-- Puts a message at one end of its list, and tells its mark so. A message that names a flow, and every message while its
-- queue has flows, goes into the flow instead, and a place holder into the list. O(log flows).
-- A function inside the scripts that queue messages, or put them back.
--
-- KEYS  epochs     hash: list key, or ring of its flows -> times it was filled from empty
-- ARGV  side       'LPUSH': behind all others; 'RPUSH': before them, for what was taken before
--       list       the queue's list of its priority
--       message
--       flow       its flow ('': the message's own header is looked at)
--       separator  kombu's, in list keys
--       fair       what the keys of flows begin with, see flows.py
--       mark_prefix   of the keys of marks: a message that begins with {"mark":"ID" has one, which gets `q|epoch|list`, and
--                  in a flow `q|epoch|ring`: whoever knows no flows throws places away, and fills lists that have none
-- Reply 1
--
-- Lists are named by queue, not declared: the broker is one Redis, never a cluster. What holds messages has no TTL.
-- What a place holder looks like: as what is left where a message was withdrawn (withdraw.lua), so that whoever knows no
-- flows passes over it. And where a message's headers are: in the last so many bytes.
local GONE, HEADERS_BYTES = 'withdrawn', 4096
local epochs = KEYS[EPOCHS]
local side, list, message, flow, separator, fair, mark_prefix = unpack(ARGV)
local cut = string.find(list, separator, 1, true)
local flag = fair .. 'has:' .. string.sub(list, 1, cut and cut - 1 or -1)
local ring = fair .. 'ring:' .. list

-- The flow that the message names; nil: it names none.
local function flow_of()
  if flow ~= '' then return flow end
  local at = string.find(message, '_flow"', math.max(1, #message - HEADERS_BYTES), true)
  return at and string.match(message, '^_flow": ?"(%x+)"', at)
end

-- Gives a flow that gets a message back the turn again that it had for it.
local function repeat_turn(name)
  local _, now = unpack(redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES'))
  local weight = tonumber(redis.call('HGET', fair .. 'weights', name) or 1)
  redis.call('ZADD', ring, math.max(now, redis.call('ZSCORE', ring, name) - 1 / weight), name)
end

-- Puts the message where it belongs; returns what the marks there name, and whether nothing waited there before.
local function put()
  local name = flow_of()
  if not name and redis.call('EXISTS', flag) == 0 then return list, redis.call(side, list, message) == 1 end
  name = name or '-'
  local is_known = side == 'RPUSH' and redis.call('ZSCORE', ring, name)
  local beside, weights = fair .. 'old:' .. name .. ':' .. list, fair .. 'weights'
  local length = side == 'RPUSH' and redis.call('RPUSHX', beside, message) or 0
  if length == 0 then length = redis.call(side, fair .. 'flow:' .. name .. ':' .. list, message) end
  local is_alone = length == 1 and begin_flow({ ring, beside }, { name, flag, weights }) == 1
  if is_known then repeat_turn(name) end
  if redis.call(side, list, GONE) == 1 then redis.call('HINCRBY', epochs, list, 1) end
  return ring, is_alone
end

local home, was_empty = put()
local epoch = was_empty and redis.call('HINCRBY', epochs, home, 1)
local marked = string.match(message, '^{"mark":"([^"]+)"')
if marked then
  local known = epoch or redis.call('HGET', epochs, home) or '0'
  redis.call('SET', mark_prefix .. marked, 'q|' .. known .. '|' .. home, 'XX')
end
return 1
