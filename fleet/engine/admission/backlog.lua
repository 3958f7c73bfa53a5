-- Tells of each list how many messages wait in it, and when the one that is next was queued. O(lists).
--
-- KEYS  lists  queues, one list per priority, with the lists of plain clients' own steps; the next message is the last
--              element; only read. Something else of such a name is nobody's message.
-- ARGV  none
-- Reply flat list, for each key: length, Unix time in seconds as text ('': its producer did not say)
local reply = {}
for _, list in ipairs(KEYS) do
  local length, queued_at = 0, ''
  if redis.call('TYPE', list).ok == 'list' then
    length = redis.call('LLEN', list)
    queued_at = string.match(redis.call('LINDEX', list, -1), '"queued_at": ?(%d+%.?%d*)') or ''
  end
  reply[#reply + 1], reply[#reply + 2] = length, queued_at
end
return reply
