-- Enter what a task has earned, once: it may be sent again and again.
--
-- KEYS  tasks      hash: task id -> row that it earned on this day       TTL tasks_life_s
--       day        hash: row -> tasks of this day                        TTL day_life_s
--       ever       hash: row -> tasks of all time                        permanent
-- ARGV  task       its id
--       row        what it earned, see rows.py
--       tasks_life_s, day_life_s   s
-- Reply code
-- Codes 1 entered;  0 it was before
local KEYS, ARGV = KEYS, ARGV
if redis.call('HSETNX', KEYS[TASKS], ARGV[TASK], ARGV[ROW]) == 0 then return 0 end
if redis.call('HLEN', KEYS[TASKS]) == 1 then redis.call('EXPIRE', KEYS[TASKS], ARGV[TASKS_LIFE_S]) end
redis.call('HINCRBY', KEYS[DAY], ARGV[ROW], 1)
if redis.call('TTL', KEYS[DAY]) < 0 then redis.call('EXPIRE', KEYS[DAY], ARGV[DAY_LIFE_S]) end
redis.call('HINCRBY', KEYS[EVER], ARGV[ROW], 1)
return 1
