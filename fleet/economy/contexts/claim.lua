-- Says anew that a task goes first with a beginning of prompts, or that it does no longer.
--
-- KEYS  warmth   see look.lua
-- ARGV  limit    under which it goes
--       holder   who it is
--       claim_s  so long nobody else goes first; 0: it is over
--       failed   1: it got no answer
-- Reply 1 it held the claim, 0 it did not
local warmth = KEYS[WARMTH]
local limit, holder, claim_s, failed = unpack(ARGV)
local field = limit .. '|claim'
if string.match(redis.call('HGET', warmth, field) or '', '^%d+ (.*)$') ~= holder then return 0 end
if claim_s == '0' then
  redis.call('HDEL', warmth, field)
  if failed == '1' then redis.call('HINCRBY', warmth, 'failed', 1) end
else
  redis.call('HSET', warmth, field, string.format('%d %s', redis.call('TIME')[1] + claim_s, holder))
end
return 1
