-- Give the lead up, so that another process takes it at its next turn.
--
-- KEYS  leader  string: process that watches the classes            TTL: as attend.lua left it
-- ARGV  me      this process
-- Reply 1 when it led, else 0
if redis.call('GET', KEYS[LEADER]) == ARGV[ME] then
  return redis.call('DEL', KEYS[LEADER])
end
return 0
