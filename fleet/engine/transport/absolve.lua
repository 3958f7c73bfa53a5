-- Forgets suspicions: of a process that lives after all, of a queue whose messages were purged, or of messages that wait no
-- more: a worker of 0.2 took them, which knows no suspects. O(suspects).
--
-- KEYS  suspects   hash: SHA-1 of a message that waits and is suspect -> whose death made it so, blank, list key; TTL kept
--       parked     hash: task id -> what waits until a time, suspects among it; only read
-- ARGV  process    id ('': any)
--       queue      the key of its first list; the others begin with it ('': any)
--       separator  kombu's, in list keys
--       fair       what the keys of flows begin with ('': wherever they wait); else only where list and flows are empty and
--                  nothing is parked
-- Reply how many were forgotten
local suspects, parked = unpack(KEYS)
local process, queue, separator, fair = unpack(ARGV)
local marks, forgotten = redis.call('HGETALL', suspects), 0

-- Lists are named by the marks, not declared: the broker is one Redis, never a cluster.
local function is_empty(list)
  return redis.call('EXISTS', list, fair .. 'ring:' .. list, parked) == 0
end

for i = 1, #marks, 2 do
  local died, list = string.match(marks[i + 1], '^(%S+) (.*)$')
  local is_its = (process == '' or died == process) and (fair == '' or is_empty(list))
  if is_its and (queue == '' or list == queue or string.sub(list, 1, #queue + #separator) == queue .. separator) then
    forgotten = forgotten + redis.call('HDEL', suspects, marks[i])
  end
end
return forgotten
