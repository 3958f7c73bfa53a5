-- Looks for a task's message in a stretch of a queue, from its head. O(skip / 128 + count), reads only.
--
-- KEYS  list   the queue's list of one priority; the next message is the last element
-- ARGV  skip   messages to skip (count)
--       count  messages to look at
--       texts  one of which a message must hold
-- Reply {place, message, looked at, bytes}: place counts from 0 (the next one), -1: not in this stretch
if redis.call('TYPE', KEYS[LIST]).ok ~= 'list' then return { -1, '', 0, 0 } end  -- none, or nobody's messages
local skip = tonumber(ARGV[SKIP])
local messages = redis.call('LRANGE', KEYS[LIST], -skip - tonumber(ARGV[COUNT]), -skip - 1)
local bytes = 0
for back = #messages, 1, -1 do
  local message = messages[back]
  bytes = bytes + #message
  for i = TEXTS + 1, #ARGV do
    if string.find(message, ARGV[i], 1, true) then
      local place = #messages - back
      return { skip + place, message, place + 1, bytes }
    end
  end
end
return { -1, '', #messages, bytes }
