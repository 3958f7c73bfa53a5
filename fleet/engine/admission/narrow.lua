-- Let only so many more tasks of some queues be taken: their limit has enough calls waiting, the rest waits in the queue.
--
-- KEYS     1 bell (stream)  2.. strings, one per queue: rooms (see take.lua), TTL ARGV 1
-- ARGV     1 life of the rooms (ms)  2 "1": rooms end where none of them was used  3-7 room for tasks of each priority,
--          the most urgent first, counting those of more urgent ones
-- Reply    1 narrowed, 0 not any more
local call, rings, narrow = redis.call, false, false
local rooms = table.concat(ARGV, ' ', 3, 7)
for i = 2, #KEYS do
  local old = call('GET', KEYS[i])
  local left, given = string.match(old or '', '(%S+) (%S+)$')
  local is_used = left and tonumber(left) < tonumber(given)
  if ARGV[2] == '1' and not is_used then
    call('DEL', KEYS[i])
    rings = rings or old
  else
    call('SET', KEYS[i], rooms .. ' ' .. ARGV[7], 'PX', ARGV[1])
    rings, narrow = rings or (is_used and tonumber(ARGV[7]) > 0), true
  end
end
if rings then call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'x', 1) end
return narrow and 1 or 0
