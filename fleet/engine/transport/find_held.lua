-- Looks for a task's message among some of those that workers hold. O(count), reads only.
--
-- KEYS  unacked  hash: tag -> list key, newline, message
--       index    sorted set: tag -> time of the last renewal, Unix s
-- ARGV  cursor   '0': from the start
--       count    messages to look at
--       texts    one of which a message must hold
-- Reply {cursor ('0': that was all), tag, entry, last renewal}; tag '': not among these
local unacked, index = unpack(KEYS)
local cursor, entries = unpack(redis.call('HSCAN', unacked, ARGV[CURSOR], 'COUNT', ARGV[COUNT]))
for i = 1, #entries, 2 do
  local tag, entry = entries[i], entries[i + 1]
  for n = TEXTS + 1, #ARGV do
    if string.find(entry, ARGV[n], 1, true) then
      return { cursor, tag, entry, redis.call('ZSCORE', index, tag) or '' }
    end
  end
end
return { cursor, '', '', '' }
