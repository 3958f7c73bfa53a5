-- Lifts holds, and wakes the workers: what waits behind them may be taken. O(queues).
--
-- KEYS  bell     stream, one entry
--       holds    strings, one per queue: JSON of a `Wait`
-- ARGV  about    only those about this ('': about anything)
--       causes   only those of one of these causes, with blanks between ('': of any)
--       waiting_prefix   of the sorted sets that tell which queues have messages, one per priority
--       priorities       how many (count)
--       queues   their names, in the order of the holds
-- Reply holds lifted
--
-- Takes strike queues that are held off the sets: here they come back, and what has no messages is struck off again.
local about, causes, waiting_prefix, priorities = unpack(ARGV)
local lifted = 0

-- True for what is to go; a hold that cannot be read goes with all of them.
local function is_meant(text)
  if not text then return false end
  local is_known, wait = pcall(cjson.decode, text)
  if not is_known or type(wait) ~= 'table' then return about == '' and causes == '' end
  local cause = type(wait.cause) == 'string' and wait.cause or ''
  if about ~= '' and wait.about ~= about then return false end
  return causes == '' or string.find(' ' .. causes .. ' ', ' ' .. cause .. ' ', 1, true)
end

for i = HOLDS + 1, #KEYS do
  if is_meant(redis.call('GET', KEYS[i])) then
    redis.call('DEL', KEYS[i])
    local number = i - HOLDS
    local queue = ARGV[QUEUES + number]
    for step = 0, priorities - 1 do redis.call('ZADD', waiting_prefix .. step, 0, queue) end
    lifted = lifted + 1
  end
end
if lifted > 0 then redis.call('XADD', KEYS[BELL], 'MAXLEN', 1, '*', 'x', 1) end
return lifted
