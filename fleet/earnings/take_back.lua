-- Take back what a task has earned, once, by a counter-entry of today: what was entered stays.
--
-- KEYS  tasks      hash: task id -> row that it earned                                            TTL as it has
--       taken      hash: task id -> JSON of when, who and why                                    TTL tasks_life_s
--       day        hash: row -> tasks of today                                                    TTL day_life_s
--       ever       hash: row -> tasks of all time                                                 permanent
-- ARGV  task       its id
--       row        what it earned, as it was read
--       counter    the row of the counter-entry
--       mark       JSON of when, who and why
--       tasks_life_s, day_life_s   s
-- Reply code
-- Codes 1 taken back;  0 it was before;  -1 it has not earned that
if redis.call('HGET', KEYS[TASKS], ARGV[TASK]) ~= ARGV[ROW] then return -1 end
if redis.call('HSETNX', KEYS[TAKEN], ARGV[TASK], ARGV[MARK]) == 0 then return 0 end
if redis.call('HLEN', KEYS[TAKEN]) == 1 then redis.call('EXPIRE', KEYS[TAKEN], ARGV[TASKS_LIFE_S]) end
redis.call('HINCRBY', KEYS[DAY], ARGV[COUNTER], 1)
if redis.call('TTL', KEYS[DAY]) < 0 then redis.call('EXPIRE', KEYS[DAY], ARGV[DAY_LIFE_S]) end
redis.call('HINCRBY', KEYS[EVER], ARGV[COUNTER], 1)
return 1
