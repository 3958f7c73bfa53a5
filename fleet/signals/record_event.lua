-- Adds an event to the fleet's stream of events, unless the same one was added a moment ago. O(1).
--
-- KEYS  events    stream, about `most` entries; fields `event` and those given    TTL: life_s
--       quiet     string: this event was added                                    TTL: quiet_ms
-- ARGV  most      most entries
--       life_s    life of the stream, s
--       quiet_ms  ms for which it is not added again (0: always add)
--       event     its name
--       fields    pairs field, value
-- Reply 1 added, 0 was added a moment ago
local events, quiet = unpack(KEYS)
local most, life_s, quiet_ms, event = unpack(ARGV)
if tonumber(quiet_ms) > 0 and not redis.call('SET', quiet, 1, 'PX', quiet_ms, 'NX') then
  return 0
end
redis.call('XADD', events, 'MAXLEN', '~', most, '*', 'event', event, unpack(ARGV, FIELDS + 1))
redis.call('EXPIRE', events, life_s)
return 1
