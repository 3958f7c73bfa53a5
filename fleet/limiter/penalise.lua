-- The provider answered 429: nobody gets a slot before now + retry_after, and nobody finds a burst then.
--
-- KEYS[1]  limit (hash, TTL 7 days beyond its latest clock): r, t = clocks of requests and tokens, p = nobody before p
--          (microseconds of Redis time); x = refusals by the provider, xa = time of the last one
-- ARGV     1 retry_after     how long the provider asked to wait (us)
--          2 request_us      emission interval of a request (us)
--          3 request_burst   how far the request clock may be ahead (us)
--          4 token_burst     how far the token clock may be ahead (us)
-- Reply    {code, wait_us, now_us}: wait_us until the limit is open again
-- Codes    1 held
local key = KEYS[1]
local retry_after, request_us = tonumber(ARGV[1]), tonumber(ARGV[2])
local request_burst, token_burst = tonumber(ARGV[3]), tonumber(ARGV[4])
local KEEP_MS = 604800000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', key, 'r', 't', 'p', 'x')
local r, t, p = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 0

-- Clocks that stand a whole burst ahead at p: the first request may go at p, the next one an interval later.
p = math.max(p, now + retry_after)
r = math.max(r, p + request_burst - request_us)
t = math.max(t, p + token_burst)
redis.call('HSET', key, 'r', string.format('%.0f', r), 't', string.format('%.0f', t), 'p', string.format('%.0f', p),
  'x', string.format('%.0f', (tonumber(state[4]) or 0) + 1), 'xa', string.format('%.0f', now))
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((math.max(r, t) - now) / 1000) + KEEP_MS))
return {1, p - now, now}
