-- Let keys expire within a time; those that expire sooner or are gone stay as they are. O(keys), at most 1000 of them.
--
-- KEYS  results  strings; their TTL afterwards: at most life_s
-- ARGV  life_s   s
-- Reply number of keys whose life was shortened
local life_s = tonumber(ARGV[LIFE_S])
local shortened = 0
for _, key in ipairs(KEYS) do
  if redis.call('TTL', key) > life_s then
    shortened = shortened + redis.call('EXPIRE', key, life_s)
  end
end
return shortened
