-- Write down how far a job is, unless somebody else has taken it on meanwhile: a process that stood still must not send.
--
-- KEYS  job     hash: what is known of the job; see form.lua
-- ARGV  before  its state, as it was read
--       since   its `at`, as it was read
--       fields  name, value of each
-- Reply 1 written;  0 it is another one's by now
local job = KEYS[JOB]
local state, at = unpack(redis.call('HMGET', job, 'state', 'at'))
if state ~= ARGV[BEFORE] or at ~= ARGV[SINCE] then return 0 end
for i = FIELDS + 1, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
return 1
