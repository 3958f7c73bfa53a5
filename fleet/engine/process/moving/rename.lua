-- Give a key its new name, unless somebody has written that one anew. O(1). A function of the scripts that move keys.
--
-- KEYS  old, new  of any type                                                     TTL: life_s
-- ARGV  life_s    life of the key, s
-- Reply 0 there is nothing to move, 1 moved, 2 both are there: they have to be merged
local old, new = unpack(KEYS)
if redis.call('EXISTS', old) == 0 then return 0 end
local is_there = redis.call('EXISTS', new) == 1
if not is_there then redis.call('RENAME', old, new) end
redis.call('EXPIRE', new, ARGV[LIFE_S])
return is_there and 2 or 1
