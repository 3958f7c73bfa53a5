-- Reserve the next slot for one call, for its request and its tokens together, or nothing at all.
--
-- KEYS[1]  limit (hash, TTL 7 days beyond its latest clock): r, t = clocks of requests and tokens, p = nobody before p
--          (microseconds of Redis time); n, k = requests and tokens granted since the hash exists
-- ARGV     1 tokens          reserved tokens (count)
--          2 request_us      emission interval of a request; 0: requests are not limited
--          3 tokens_us       emission interval of these tokens; 0: tokens are not limited
--          4 request_burst   how far the request clock may be ahead (us)
--          5 token_burst     how far the token clock may be ahead (us)
--          6 jitter          most that the call may leave after its slot (us)
--          7 random          [0, 1), decides the jitter
--          8 max_wait        longest wait that the caller accepts (us)
-- Reply    {code, wait_us, now_us}
-- Codes    1 reserved: send after wait_us;  0 too late: nothing was reserved, the slot would be in wait_us
local key = KEYS[1]
local tokens, request_us, tokens_us = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local request_burst, token_burst = tonumber(ARGV[4]), tonumber(ARGV[5])
local jitter, random, max_wait = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local KEEP_MS = 604800000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', key, 'r', 't', 'p', 'n', 'k')
local r, t, p = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 0

local slot = math.max(now, p)
if request_us > 0 then slot = math.max(slot, r + request_us - request_burst) end
-- More tokens than the burst holds: they go once the whole burst is there, and the next call waits for the debt.
if tokens_us > 0 then slot = math.max(slot, t + math.min(tokens_us, token_burst) - token_burst) end
local wait = slot - now
if wait > max_wait then return {0, wait, now} end

-- A call that finds the whole burst unused is alone: it has nobody to step aside for.
if r > now or t > now or wait > 0 then
  local room = math.min(jitter, math.max(request_us, tokens_us), max_wait - wait)
  wait = wait + math.floor(random * room)
end
if request_us > 0 then r = math.max(slot, r) + request_us end
if tokens_us > 0 then t = math.max(slot, t) + tokens_us end
redis.call('HSET', key, 'r', string.format('%.0f', r), 't', string.format('%.0f', t),
  'n', string.format('%.0f', (tonumber(state[4]) or 0) + 1),
  'k', string.format('%.0f', (tonumber(state[5]) or 0) + tokens))
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((math.max(r, t, now) - now) / 1000) + KEEP_MS))
return {1, wait, now}
