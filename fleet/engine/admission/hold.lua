-- Close a queue's gate for a moment, or keep it closed a moment longer. A gate that somebody closed for longer stays.
--
-- KEYS  1 gate  string: the lowest priority that may be taken (-1: none)
-- ARGV  1 life of the gate, ms
-- Reply 1 closed by us, 0 closed by somebody else
local left_ms = redis.call('PTTL', KEYS[1])
if left_ms == -1 or left_ms > tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], '-1', 'PX', ARGV[1])
return 1
