-- Adds an event to the fleet's stream of events, unless the same one was added a moment ago. O(1).
--
-- KEYS  1 events  stream, about ARGV 1 entries; fields `event` and those of ARGV 5..   TTL: ARGV 2
--       2 quiet   string: this event was added; expires after ARGV 3
-- ARGV  1 most entries  2 life of the stream, s  3 ms for which it is not added again (0: always add)  4 event
--       5.. pairs field, value
-- Reply 1 added, 0 was added a moment ago
local events, quiet = KEYS[1], KEYS[2]
if tonumber(ARGV[3]) > 0 and not redis.call('SET', quiet, 1, 'PX', ARGV[3], 'NX') then
  return 0
end
redis.call('XADD', events, 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[4], unpack(ARGV, 5))
redis.call('EXPIRE', events, ARGV[2])
return 1
