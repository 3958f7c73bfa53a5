-- Tells where a beginning of prompts is warm, in the cache of which keys; where nowhere, one task is let go first.
--
-- KEYS  warmth     hash of one beginning    TTL life_s:
--                  LIMIT|until -> s of Redis time until which its key has it;  LIMIT|claim -> s, a blank, holder;
--                  failed -> tasks that went first and got no answer;  last, short, long, later: see note.lua
-- ARGV  holder     who asks
--       claim_s    so long nobody else goes first, unless it is told again
--       life_s     of the hash
--       least_failed  from so many on nobody waits any more
--       limits*    that the call may go under, best first
-- Reply {code, limit, s, short, long, later}
-- Codes 1 it goes: `limit` is warm until `s`, others may be ('': nobody waits, whatever is warm)
--       2 it goes first, under `limit`;  0 another one does, until `s` at least
local warmth = KEYS[WARMTH]
local holder, claim_s, life_s, least_failed = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])
local learnt = redis.call('HMGET', warmth, 'short', 'long', 'later')

local function reply(code, limit, at_s)
  return { code, limit, at_s, tonumber(learnt[1] or 0), tonumber(learnt[2] or 0), tonumber(learnt[3] or 0) }
end

for i = LIMITS + 1, #ARGV do
  local warm_until = tonumber(redis.call('HGET', warmth, ARGV[i] .. '|until') or 0)
  if warm_until > now then return reply(1, ARGV[i], warm_until) end
end
local first
for i = LIMITS + 1, #ARGV do
  first = first or ARGV[i]
  local at_s, by = string.match(redis.call('HGET', warmth, ARGV[i] .. '|claim') or '', '^(%d+) (.*)$')
  if at_s and tonumber(at_s) > now and by ~= holder then return reply(0, ARGV[i], tonumber(at_s)) end
end
if tonumber(redis.call('HGET', warmth, 'failed') or 0) >= tonumber(least_failed) then return reply(1, '', 0) end
redis.call('HSET', warmth, first .. '|claim', string.format('%d %s', now + claim_s, holder))
redis.call('EXPIRE', warmth, life_s)
return reply(2, first, now + claim_s)
