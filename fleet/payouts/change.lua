-- Change where a payout stands, if nobody else has; what its failed payments were to pay is due again.
--
-- KEYS  netted     hash: row -> how many of its tasks payouts have taken up      permanent
--       payouts    hash: id -> JSON                                             permanent
--       open       hash: network -> id of the payout under way                  permanent
--       parts      hash: id of a payment -> JSON of rows and counts             permanent
-- ARGV  payout     its id
--       network    its network
--       before     JSON, as it was read
--       after      JSON
--       closes     '1': nothing of it is under way any more
--       failed     ids of payments that have failed now
-- Reply code
-- Codes 1 changed;  0 somebody else has changed it
local KEYS, ARGV = KEYS, ARGV
if redis.call('HGET', KEYS[PAYOUTS], ARGV[PAYOUT]) ~= ARGV[BEFORE] then return 0 end
for i = FAILED + 1, #ARGV do
  for row, count in pairs(cjson.decode(redis.call('HGET', KEYS[PARTS], ARGV[i]))) do
    redis.call('HINCRBY', KEYS[NETTED], row, -count)
  end
end
redis.call('HSET', KEYS[PAYOUTS], ARGV[PAYOUT], ARGV[AFTER])
if ARGV[CLOSES] == '1' and redis.call('HGET', KEYS[OPEN], ARGV[NETWORK]) == ARGV[PAYOUT] then
  redis.call('HDEL', KEYS[OPEN], ARGV[NETWORK])
end
return 1
