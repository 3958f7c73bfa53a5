-- Parks a message: it waits in Redis until a time, held by nobody. O(log parked).
--
-- KEYS  parked    hash: task id -> list key, newline, reason, newline, message     no TTL: it lives with its entries
--       openings  sorted set: queue -> opening time of what opens first there (Redis time, s)
--       order     sorted set of the queue: task id -> opening time
-- ARGV  queue     its name
--       id        of the task
--       at        opening time, s
--       entry     list key, newline, reason, newline, message
--       mark_prefix   of the keys of marks: a message that begins with {"mark":"ID" has one, which gets `p|task id`
-- Reply 1
--
-- The same message twice is one entry. Another message of the same task (its producer queued it twice) gets a name of its
-- own: no message is lost for another one.
local parked, openings, order = unpack(KEYS)
local queue, id, at, entry, mark_prefix = unpack(ARGV)
local known = redis.call('HGET', parked, id)
if known and known ~= entry then id = id .. '\n' .. redis.sha1hex(entry) end
redis.call('HSET', parked, id, entry)
redis.call('ZADD', order, at, id)
redis.call('ZADD', openings, 'LT', at, queue)
local marked = string.match(entry, '^[^\n]*\n[^\n]*\n{"mark":"([^"]+)"')
if marked then redis.call('SET', mark_prefix .. marked, 'p|' .. id, 'XX') end
return 1
