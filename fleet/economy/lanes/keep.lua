-- Keep what came of some tasks of a job, where somebody still wants to know. Safe to repeat. O(tasks).
--
-- KEYS  batched  of each task, hash: see enrol.lua; may be gone: it was cancelled, or its words were erased
-- ARGV  life_s   of what came, s
--       answers  of each task: the answer as JSON; '': none came, so it goes on by itself
-- Reply tasks for which something was kept (count)
local count = 0
for i, batched in ipairs(KEYS) do
  if redis.call('EXISTS', batched) == 1 then
    local answer = ARGV[ANSWERS + i]
    redis.call('HDEL', batched, 'body')
    redis.call('HSET', batched, answer == '' and 'freed' or 'answer', answer == '' and '1' or answer)
    redis.call('EXPIRE', batched, ARGV[LIFE_S])
    count = count + 1
  end
end
return count
