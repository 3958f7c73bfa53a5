-- Puts another text in the place of one that has not changed since it was read.
--
-- KEYS     rows     hash                  TTL: as it has
-- ARGV     field    of it
--          before   what was read there
--          after    what lies there from now on
-- Reply    1 replaced;  0 it has changed, or gone
if redis.call('HGET', KEYS[ROWS], ARGV[FIELD]) ~= ARGV[BEFORE] then return 0 end
redis.call('HSET', KEYS[ROWS], ARGV[FIELD], ARGV[AFTER])
return 1
