-- Read what pools have counted, and what ended last in each; changes nothing. O(pools).
--
-- KEYS  places  of each pool three: its totals (hash), its last completions (string), its last failures (list)
-- ARGV  none
-- Reply for each pool {counters and their numbers, flat; the completions; the failures}
local reply = {}
for i = PLACES + 1, #KEYS, 3 do
  reply[#reply + 1] = {
    redis.call('HGETALL', KEYS[i]), redis.call('GET', KEYS[i + 1]) or '', redis.call('LRANGE', KEYS[i + 2], 0, -1),
  }
end
return reply
