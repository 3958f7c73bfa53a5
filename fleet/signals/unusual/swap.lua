-- Writes an alarm down, or takes it away, unless somebody has changed it meanwhile: two hands never undo each other.
--
-- KEYS     alarms   hash, see vault_keys.unusual                                         TTL: none
-- ARGV     name     its field
--          before   what was read there; '': nothing
--          after    what shall be there; '': nothing
-- Reply    1 done;  0 it is another one by now
if (redis.call('HGET', KEYS[ALARMS], ARGV[NAME]) or '') ~= ARGV[BEFORE] then return 0 end
if ARGV[AFTER] == '' then
  redis.call('HDEL', KEYS[ALARMS], ARGV[NAME])
else
  redis.call('HSET', KEYS[ALARMS], ARGV[NAME], ARGV[AFTER])
end
return 1
