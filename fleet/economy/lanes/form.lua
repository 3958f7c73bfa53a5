-- Make a job of tasks that gather, in one step: whoever dies, each task is in one place. O(tasks x log gathering).
--
-- KEYS  gathering  sorted set: task id -> Unix time by which it is needed                 TTL: enrol.lua
--       limits     hash: provider/model/key -> Unix time since which tasks gather there   TTL: enrol.lua
--       jobs       sorted set: job id -> Unix time at which it is looked at next          TTL life_s
--       job        hash: what is known of the job                                         TTL life_s
--       tasks      list: ids of its tasks, in the order of its requests                   TTL life_s
--       batched    of each task, hash: see enrol.lua; may be gone
-- ARGV  id         of the job
--       limit      provider/model/key
--       by_at      Unix time by which the first of its tasks is needed
--       rescue_at  Unix time at which it is cancelled unless it has ended
--       life_s     of what is known of it, s
--       members    task ids, in the order of `batched`
-- Reply tasks in the job (count); 0: none of them gathers any more, or the job is there already
local gathering, limits, jobs, job, tasks = unpack(KEYS)
local id, limit, by_at, rescue_at, life_s = unpack(ARGV)
if redis.call('EXISTS', job) == 1 then return 0 end
local now = redis.call('TIME')[1]
local count = 0
for i = 1, #ARGV - MEMBERS do
  local batched, member = KEYS[BATCHED + i], ARGV[MEMBERS + i]
  if redis.call('ZREM', gathering, member) == 1 and redis.call('EXISTS', batched) == 1 then
    redis.call('HSET', batched, 'job', id)
    redis.call('RPUSH', tasks, member)
    count = count + 1
  end
end
if redis.call('EXISTS', gathering) == 0 then
  redis.call('HDEL', limits, limit)
else
  redis.call('HSET', limits, limit, now)
end
if count == 0 then return 0 end
redis.call(
  'HSET', job, 'state', 'intent', 'limit', limit, 'count', count, 'made_at', now, 'at', now .. '.0', 'by_at', by_at,
  'rescue_at', rescue_at
)
redis.call('ZADD', jobs, now, id)
for _, key in ipairs({ jobs, job, tasks }) do redis.call('EXPIRE', key, life_s) end
return count
