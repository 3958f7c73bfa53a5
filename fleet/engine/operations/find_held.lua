-- Looks for a task's message among some of those that workers hold. O(count), reads only.
--
-- KEYS  1 unacked  hash: tag -> list key, newline, message
--       2 index    sorted set: tag -> time of the last renewal, Unix s
-- ARGV  1 cursor ('0': from the start)  2 messages to look at (count)  3.. texts, one of which a message must hold
-- Reply {cursor ('0': that was all), tag, entry, last renewal}; tag '': not among these
local unacked, index = KEYS[1], KEYS[2]
local scanned = redis.call('HSCAN', unacked, ARGV[1], 'COUNT', ARGV[2])
for i = 1, #scanned[2], 2 do
  local tag, entry = scanned[2][i], scanned[2][i + 1]
  for n = 3, #ARGV do
    if string.find(entry, ARGV[n], 1, true) then
      return { scanned[1], tag, entry, redis.call('ZSCORE', index, tag) or '' }
    end
  end
end
return { scanned[1], '', '', '' }
