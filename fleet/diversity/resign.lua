-- Give the lead up, so that another process takes it at its next turn.
--
-- KEYS  1 leader  string: process that watches the classes
-- ARGV  1 this process
-- Reply 1 when it led, else 0

local leader, me = KEYS[1], ARGV[1]
if redis.call('GET', leader) == me then
  return redis.call('DEL', leader)
end
return 0
