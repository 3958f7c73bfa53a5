-- Gives the mark of an idempotency key the life that its task's result has. O(1).
--
-- KEYS  mark    string                TTL afterwards: life_s
-- ARGV  life_s  s
-- Reply 1, or 0 when there is no mark
return redis.call('SET', KEYS[MARK], 'done', 'XX', 'EX', ARGV[LIFE_S]) and 1 or 0
