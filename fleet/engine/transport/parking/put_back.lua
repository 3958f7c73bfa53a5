-- Puts a message that its worker holds back into Redis, where it waits: to the head of its list, its old place, or into
-- the parked set until a time. From lease to place in one step, so that no death touches it. O(log parked).
--
-- KEYS  unacked   hash: tag -> list key, newline, message
--       index     sorted set: tag -> time of the last lease renewal
--       parked, openings, order   see park.lua
--       suspects  hash: SHA-1 of a message that waits and is suspect -> whose death made it so (restore.lua)  TTL: life_s
--       epochs    hash: list key -> times it was filled from empty
--       waiting   sorted set: names of queues that may have messages of the priority
--       bell      stream, one entry
--       revoked   sorted set: task id -> time at which the mark may go; a task revoked meanwhile is over where it waits
--       ends      sorted set: queue -> the soonest end of a task that waits there: when to look for what is over
--       gate, hold   strings: what the queue hands out now, see take.lua
-- ARGV  tag       delivery tag
--       queue     its name
--       step      priority step of its list
--       id        of the task
--       at        opening time, s ('': to the head of its list)
--       reason    why it waits: JSON on one line; for the parked set
--       message   what goes back, with what the task has had in its header ('': as it came)
--       mark      how the tag of a message ends that was taken as a suspect: it goes back as one
--       mark_prefix   of the keys of marks, see park.lua
--       life_s    life of the suspects' marks, s
--       separator, fair   see enter.lua
-- Reply 1 put back, 0 this worker does not hold it any more: its lease was lost, or this call is a repeated one
--
-- Workers are woken only where the message may be taken: not for each of the tasks that a hold sends back.
local unacked, index, parked, openings, order, suspects, epochs, waiting, bell, revoked, ends, gate, hold = unpack(KEYS)
local tag, queue, step, id, at, reason, message, mark, mark_prefix, life_s, separator, fair = unpack(ARGV)

-- True when nothing of this priority may be taken, but for a probe: who sleeps knows when that is due.
local function is_stopped()
  local lowest, text = unpack(redis.call('MGET', gate, hold))
  if lowest and tonumber(step) > (tonumber(lowest) or -1) then return true end
  local is_known, wait = pcall(cjson.decode, text or '')
  if text and not (is_known and type(wait) == 'table') then return true end
  return text and tonumber(step) > (tonumber(wait.lowest) or -1)
end

local entry = redis.call('HGET', unacked, tag)
redis.call('ZREM', index, tag)
if not entry then return 0 end
redis.call('HDEL', unacked, tag)
local cut = string.find(entry, '\n', 1, true)
local list = string.sub(entry, 1, cut - 1)
if message == '' then message = string.sub(entry, cut + 1) end
if string.sub(tag, -#mark) == mark then
  redis.call('HSET', suspects, redis.sha1hex(message), '- ' .. list)
  redis.call('EXPIRE', suspects, life_s)
end
local said = string.find(message, '"fleet_expires"', 1, true)
local over = said and string.match(message, '^"fleet_expires": ?([%d.]+)', said)
if redis.call('ZSCORE', revoked, id) then over = '0' end
if over then redis.call('ZADD', ends, 'LT', over, queue) end
if at ~= '' then
  entry = list .. '\n' .. reason .. '\n' .. message
  return park({ parked, openings, order }, { queue, id, at, entry, mark_prefix })
end
local side, flow = 'RPUSH', ''
enter({ epochs }, { side, list, message, flow, separator, fair, mark_prefix })
redis.call('ZADD', waiting, 0, queue)
if not is_stopped() then redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1) end
return 1
