-- Let only so many more tasks of some queues be taken: their limit has enough calls waiting, the rest waits in the queue.
--
-- KEYS  bell     stream
--       rooms    strings, one per queue, see take.lua                TTL: life_ms
-- ARGV  life_ms  life of the rooms, ms
--       ends     "1": rooms end where none of them was used
--       room     for tasks of each priority, the most urgent first, counting those of more urgent ones
-- Reply 1 narrowed, 0 not any more
local call, rings, narrow = redis.call, false, false
local room, of_all = table.concat(ARGV, ' ', ROOM + 1), ARGV[#ARGV]
for i = ROOMS + 1, #KEYS do
  local old = call('GET', KEYS[i])
  local left, given = string.match(old or '', '(%S+) (%S+)$')
  local is_used = left and tonumber(left) < tonumber(given)
  if ARGV[ENDS] == '1' and not is_used then
    call('DEL', KEYS[i])
    rings = rings or old
  else
    call('SET', KEYS[i], room .. ' ' .. of_all, 'PX', ARGV[LIFE_MS])
    rings, narrow = rings or (is_used and tonumber(of_all) > 0), true
  end
end
if rings then call('XADD', KEYS[BELL], 'MAXLEN', 1, '*', 'x', 1) end
return narrow and 1 or 0
