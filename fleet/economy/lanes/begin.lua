-- Note a task that is answered in the background, and its response as a job that runs, in one step. Safe to repeat.
--
-- KEYS  batched    hash: see enrol.lua                                                    TTL life_s
--       jobs, job, tasks  see form.lua                                                    TTL life_s
-- ARGV  id         of the job
--       task       its id
--       asked      JSON: whose it is, and who asks
--       life_s     of what is known of it, s
--       fields*    of the job: name, value
-- Reply 1 it is noted;  0 the task is in a job, or on its way to one
local batched, jobs, job, tasks = unpack(KEYS)
local id, task, asked, life_s = unpack(ARGV)
if redis.call('EXISTS', batched) == 1 then return 0 end
local now = redis.call('TIME')[1]
redis.call('HSET', batched, 'asked', asked, 'job', id)
redis.call('RPUSH', tasks, task)
redis.call('HSET', job, 'made_at', now, 'at', now .. '.0', unpack(ARGV, FIELDS + 1))
redis.call('ZADD', jobs, now, id)
for _, key in ipairs({ batched, jobs, job, tasks }) do redis.call('EXPIRE', key, life_s) end
return 1
