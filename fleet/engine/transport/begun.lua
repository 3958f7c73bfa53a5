-- Tells which tokens had a bot of one pool checked out: their tasks had begun. O(tokens), reads only.
--
-- KEYS  reaped  sorted set: token -> s: leases of bots that ran out
--       claims  hash: token -> bot
-- ARGV  tokens  to look for
-- Reply those that had
local begun = {}
for _, token in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[CLAIMS], token) == 1 or redis.call('ZSCORE', KEYS[REAPED], token) then
    begun[#begun + 1] = token
  end
end
return begun
