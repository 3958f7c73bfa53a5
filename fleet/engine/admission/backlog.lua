-- Tells of each list how many messages wait in it, and when the one that is next was queued. O(lists).
--
-- KEYS  lists  queues, one list per priority; the next message is the last element; only read
-- ARGV  none
-- Reply flat list, for each key: length, Unix time in seconds as text ('': its producer did not say)
local reply = {}
for _, list in ipairs(KEYS) do
  local message = redis.call('LINDEX', list, -1)
  reply[#reply + 1] = redis.call('LLEN', list)
  reply[#reply + 1] = message and string.match(message, '"queued_at": ?(%d+%.?%d*)') or ''
end
return reply
