-- Removes all messages of one list: `celery purge`. O(messages).
--
-- KEYS  list    list: a queue's messages of one priority
--       epochs  hash: list key -> times it was filled from empty
-- ARGV  none
-- Reply number of messages removed
--
-- Whatever is queued under idempotency keys there may be queued again at once (see orphan_mark.lua).
local list, epochs = unpack(KEYS)
local length = redis.call('LLEN', list)
redis.call('DEL', list)
if length > 0 then redis.call('HINCRBY', epochs, list, 1) end
return length
