-- Account for a call that is over: move the token clock back by what was not used, or forward by the excess.
--
-- KEYS[1]  limit (hash, TTL 7 days beyond its latest clock): t = token clock, p = nobody before p (microseconds of
--          Redis time); k = tokens granted, net; m = minute that is counted, mr, mt = requests and tokens used in it,
--          lr, lt = the same of the minute before
-- ARGV     1 back_us     emission interval of the tokens that come back (us); negative: excess is charged
--          2 back        tokens that come back (count); negative: excess
--          3 requests    1, or 0 when the call was never sent
--          4 used        tokens used (count)
--          5 token_burst how far the token clock may be ahead (us)
-- Reply    {code, 0, now_us}
-- Codes    1 settled;  0 the limit is not known any more, nothing to settle
local key = KEYS[1]
local back_us, back = tonumber(ARGV[1]), tonumber(ARGV[2])
local requests, used, token_burst = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local KEEP_MS, MINUTE_US = 604800000, 60000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if redis.call('EXISTS', key) == 0 then return {0, 0, now} end
local state = redis.call('HMGET', key, 't', 'p', 'k', 'm', 'mr', 'mt', 'lr', 'lt', 'r')
local t, p, k = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 0
local m, mr, mt = tonumber(state[4]) or 0, tonumber(state[5]) or 0, tonumber(state[6]) or 0
local lr, lt, r = tonumber(state[7]) or 0, tonumber(state[8]) or 0, tonumber(state[9]) or 0

-- While the limit is held, what comes back must not become the burst that the penalty took.
local floor = -math.huge
if p > now then floor = math.min(t, p + token_burst) end
t = math.max(t - back_us, floor)

local minute = math.floor(now / MINUTE_US)
if minute ~= m then
  if minute == m + 1 then lr, lt = mr, mt else lr, lt = 0, 0 end
  m, mr, mt = minute, 0, 0
end
redis.call('HSET', key, 't', string.format('%.0f', t), 'k', string.format('%.0f', k - back),
  'm', string.format('%.0f', m), 'mr', string.format('%.0f', mr + requests), 'mt', string.format('%.0f', mt + used),
  'lr', string.format('%.0f', lr), 'lt', string.format('%.0f', lt))
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((math.max(r, t, p, now) - now) / 1000) + KEEP_MS))
return {1, 0, now}
