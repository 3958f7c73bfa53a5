-- Close a queue's gate for a moment, or keep it closed a moment longer. A gate that somebody closed for longer stays.
--
-- KEYS  gate     string: the lowest priority that may be taken (-1: none)   TTL: life_ms
-- ARGV  life_ms  life of the gate, ms
-- Reply 1 closed by us, 0 closed by somebody else
local gate, life_ms = KEYS[GATE], ARGV[LIFE_MS]
local left_ms = redis.call('PTTL', gate)
if left_ms == -1 or left_ms > tonumber(life_ms) then
  return 0
end
redis.call('SET', gate, '-1', 'PX', life_ms)
return 1
