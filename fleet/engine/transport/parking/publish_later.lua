-- Publishes a message for later: parks it until its time, or queues it when that has come by the clock of Redis.
-- O(log parked).
--
-- KEYS  parked, openings, order   see park.lua
--       list      the queue's list of the message's priority
--       waiting   sorted set: names of queues that may have messages of it
--       bell      stream, one entry
--       epochs    hash: list key -> times it was filled from empty
-- ARGV  queue     its name
--       id        of the task
--       at        opening time, s
--       reason    why it waits: a word
--       mark_prefix   of the keys of marks, see park.lua
--       message
--       separator, fair   see enter.lua
-- Reply 1 parked, 0 queued
--
-- A consumer that sleeps looks again when the next opening comes that it knows of, and after a second at most: what opens
-- within that second wakes it, so that it learns of it.
local SOON_S = 1
local list = KEYS[LIST]
local queue, id, at, reason, mark_prefix, message, separator, fair = unpack(ARGV)
local seconds, microseconds = unpack(redis.call('TIME'))
local left_s = at - (seconds + microseconds / 1000000)
if left_s > 0 then
  local entry = list .. '\n' .. reason .. '\n' .. message
  park({ KEYS[PARKED], KEYS[OPENINGS], KEYS[ORDER] }, { queue, id, at, entry, mark_prefix })
else
  local side, flow = 'LPUSH', ''
  enter({ KEYS[EPOCHS] }, { side, list, message, flow, separator, fair, mark_prefix })
  redis.call('ZADD', KEYS[WAITING], 0, queue)
end
if left_s < SOON_S then redis.call('XADD', KEYS[BELL], 'MAXLEN', 1, '*', 'x', 1) end
return left_s > 0 and 1 or 0
