-- Tells which tokens had a bot checked out: their tasks had begun. O(tokens x pools), reads only.
--
-- KEYS  reaped  sorted set: token -> s: leases of bots that ran out
--       claims  hashes, one per pool: token -> bot
-- ARGV  tokens  to look for
-- Reply those that had
local begun = {}
local function has_begun(token)
  for i = CLAIMS + 1, #KEYS do
    if redis.call('HEXISTS', KEYS[i], token) == 1 then return true end
  end
  return redis.call('ZSCORE', KEYS[REAPED], token)
end
for _, token in ipairs(ARGV) do
  if has_begun(token) then begun[#begun + 1] = token end
end
return begun
