-- Forgets suspicions: of a process that lives after all, or of a queue whose messages were purged. O(suspects).
--
-- KEYS  suspects   hash: SHA-1 of a message that waits and is suspect -> whose death made it so, blank, list key; TTL kept
-- ARGV  process    id ('': any)
--       queue      its name; it is also the key of its first list, and the others begin with it ('': any)
--       separator  kombu's, in list keys
-- Reply how many were forgotten
local suspects = KEYS[SUSPECTS]
local process, queue, separator = unpack(ARGV)
local marks, forgotten = redis.call('HGETALL', suspects), 0
for i = 1, #marks, 2 do
  local died, list = string.match(marks[i + 1], '^(%S+) (.*)$')
  local is_its = process == '' or died == process
  if is_its and (queue == '' or list == queue or string.sub(list, 1, #queue + #separator) == queue .. separator) then
    forgotten = forgotten + redis.call('HDEL', suspects, marks[i])
  end
end
return forgotten
