-- Add what one task came to to the sums of its rollout. O(fields).
--
-- KEYS  counts   hash: field -> sum                                    TTL of all: life_s
--       running  hash: pool -> JSON of the rollout that runs there; only kept alive
--       past     list (JSON): rollouts that are over; only kept alive
-- ARGV  life_s   life of the keys, s
--       fields   pairs: field, what is added to it
-- Reply 1
local counts, running, past = unpack(KEYS)
for at = FIELDS + 1, #ARGV, 2 do redis.call('HINCRBYFLOAT', counts, ARGV[at], ARGV[at + 1]) end
for _, key in ipairs({ counts, running, past }) do redis.call('EXPIRE', key, ARGV[LIFE_S]) end
return 1
