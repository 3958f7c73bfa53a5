-- Take up earnings into a payout, once: rows that others have taken up meanwhile, and a second payout of one network at
-- the same time, are refused, and nothing is done then.
--
-- KEYS  netted     hash: row -> how many of its tasks payouts have taken up      permanent
--       payouts    hash: id -> JSON                                             permanent
--       open       hash: network -> id of the payout under way                  permanent
--       parts      hash: id of a payment -> JSON of rows and counts             permanent
--       latest     hash: network -> id of the payout that was prepared last     permanent
-- ARGV  payout     its id
--       network    its network
--       record     JSON
--       before_it  the one that was prepared last when rows, schedule and nonce were read; empty: none was
--       rows       how many rows follow (count)
--       netting    for each: row, how many were taken up before, how many more; then id and JSON of each payment
-- Reply code
-- Codes 1 taken up;  0 some rows have changed, or another payout was prepared meanwhile;  -1 another payout of the network is under way
local KEYS, ARGV = KEYS, ARGV
if redis.call('HEXISTS', KEYS[OPEN], ARGV[NETWORK]) == 1 then return -1 end
if (redis.call('HGET', KEYS[LATEST], ARGV[NETWORK]) or '') ~= ARGV[BEFORE_IT] then return 0 end
local last = NETTING + 3 * tonumber(ARGV[ROWS])
for i = NETTING + 1, last, 3 do
  if (redis.call('HGET', KEYS[NETTED], ARGV[i]) or '0') ~= ARGV[i + 1] then return 0 end
end
for i = NETTING + 1, last, 3 do redis.call('HINCRBY', KEYS[NETTED], ARGV[i], ARGV[i + 2]) end
for i = last + 1, #ARGV, 2 do redis.call('HSET', KEYS[PARTS], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[PAYOUTS], ARGV[PAYOUT], ARGV[RECORD])
redis.call('HSET', KEYS[OPEN], ARGV[NETWORK], ARGV[PAYOUT])
redis.call('HSET', KEYS[LATEST], ARGV[NETWORK], ARGV[PAYOUT])
return 1
