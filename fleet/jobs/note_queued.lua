-- Notes how far a job is queued, never less than before: several producers may add to one. O(1).
--
-- KEYS  job        hash     TTL: life_s
--       follower   string   TTL: life_s
-- ARGV  queued     members that are surely queued (count)
--       queued_at  Unix time, s
--       life_s     s
-- Reply all of the hash, by name and value in turn; {} when there is none
local job, follower = unpack(KEYS)
local queued, queued_at, life_s = unpack(ARGV)
if redis.call('EXISTS', job) == 0 then return {} end
if tonumber(redis.call('HGET', job, 'queued') or 0) < tonumber(queued) then
  redis.call('HSET', job, 'queued', queued, 'queued_at', queued_at)
end
redis.call('EXPIRE', job, life_s)
redis.call('EXPIRE', follower, life_s)
return redis.call('HGETALL', job)
