-- Notes that a key's cache has a beginning of prompts: an answer to one has begun. Learns how long it lies idle.
--
-- KEYS  warmth   see look.lua;  last -> s of the last note;  short, long, later -> answers that came within
--                SHORT_S of the one before, within LONG_S, later
-- ARGV  limit    whose key
--       kept_s   so long its provider keeps it from now on
--       answers  since this process's last note (count)
--       life_s   of the hash
-- Reply 1
local warmth = KEYS[WARMTH]
local limit, kept_s, answers, life_s = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])
local last = tonumber(redis.call('HGET', warmth, 'last') or now)
local gap = now - last
local learnt = redis.call('HMGET', warmth, 'short', 'long', 'later')
local known = { tonumber(learnt[1] or 0), tonumber(learnt[2] or 0), tonumber(learnt[3] or 0) }
if known[1] + known[2] + known[3] > MOST_LEARNT then  -- what was long ago counts less
  redis.call('HSET', warmth, 'short', math.floor(known[1] / 2), 'long', math.floor(known[2] / 2),
    'later', math.floor(known[3] / 2))
end
if answers + 0 > 1 then redis.call('HINCRBY', warmth, 'short', answers - 1) end
redis.call('HINCRBY', warmth, gap <= SHORT_S and 'short' or gap <= LONG_S and 'long' or 'later', 1)
redis.call('HSET', warmth, limit .. '|until', now + kept_s, 'last', now)
redis.call('HDEL', warmth, limit .. '|claim', 'failed')
redis.call('EXPIRE', warmth, life_s)
return 1
