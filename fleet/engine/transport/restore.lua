-- Puts messages back at the head of the queue they came from: their holder gives them back, or its leases ran out.
--
-- KEYS  unacked   hash: tag -> list key, newline, message
--       index     sorted set: tag -> time of the last lease renewal (Redis time, s)
--       bell      stream, one entry
--       suspects  hash: SHA-1 of a message that waits and is suspect -> whose death made it so, blank, list key
--                                                                                                   TTL: life_s
--       epochs    hash: list key -> times it was filled from empty
-- ARGV  lapsed_s  only those whose lease was not renewed for so long, s (0: all)
--       life_s    life of the suspects' marks, s
--       mark      how the tag of a message ends that was taken as a suspect
--       bot_task  how a message names the task of bots
--       now       UTC, as an ISO time
--       mark_prefix  of the keys of idempotency marks, which tell where a message is (orphan_mark.lua)
--       separator, fair   see enter.lua
--       held      pairs, the oldest first: tag; id of the process that died with the task, '?' before it when nobody
--                 knows whether the task had begun ('': it is no suspect for that)
-- Reply {messages put back, how many of them as suspects}
--
-- The lists are named by the entries, not declared: the broker is one Redis, never a cluster. What holds messages has no
-- TTL: that would be a way to lose tasks. A message that was taken as a suspect (its tag ends so) goes back as one,
-- whoever gives it back; no return of a process clears that ('-').
local unacked, index, bell, suspects, epochs = unpack(KEYS)
local lapsed_s, life_s, mark, bot_task, now, mark_prefix, separator, fair = unpack(ARGV)
local before = redis.call('TIME')[1] - lapsed_s
local restored, suspected, side, flow = 0, 0, 'RPUSH', ''

-- Whose death makes a message suspect. Bot tasks are known to have begun; another task of Celery's has, unless its
-- time is still to come.
local function suspected_of(tag, died, message)
  if string.sub(died, 1, 1) == '?' then
    local eta = string.match(message, '"eta": ?"([^"]+)"') or ''
    local is_own = string.find(message, '"task":', 1, true) and not string.find(message, bot_task, 1, true)
    died = is_own and eta <= now and string.sub(died, 2) or ''
  end
  if died == '' and string.sub(tag, -#mark) == mark then return '-' end
  return died
end

local function put_back(tag, died)
  local entry = redis.call('HGET', unacked, tag)
  redis.call('ZREM', index, tag)
  if not entry then return end
  redis.call('HDEL', unacked, tag)
  local cut = string.find(entry, '\n', 1, true)
  local list, message = string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1)
  died = suspected_of(tag, died, message)
  if died ~= '' then
    redis.call('HSET', suspects, redis.sha1hex(message), died .. ' ' .. list)
    suspected = suspected + 1
  end
  enter({ epochs }, { side, list, message, flow, separator, fair, mark_prefix })
  restored = restored + 1
end

for i = #ARGV - 1, HELD + 1, -2 do  -- the first ends at the head
  local renewed_at = lapsed_s ~= '0' and redis.call('ZSCORE', index, ARGV[i])
  if not renewed_at or tonumber(renewed_at) <= before then put_back(ARGV[i], ARGV[i + 1]) end
end
if suspected > 0 then redis.call('EXPIRE', suspects, life_s) end
if restored > 0 then redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1) end
return { restored, suspected }
