-- Removes marks of idempotency keys whose task is nowhere any more: a step of a walk over all keys. O(count).
-- Once per pause, however many workers ask: the work does not grow with what is queued.
--
-- KEYS  walk        string: where the walk goes on (cursor)                        TTL: life_s
--       turn        string: somebody has made a step                               TTL: pause_ms
--       epochs, unacked, parked   see orphan_mark.lua
-- ARGV  pause_ms    between two steps, ms
--       life_s      life of the cursor, s
--       count       keys to look at
--       mark_prefix    of the keys of marks
--       result_prefix  of the keys of results ('': they are on another Redis)
-- Reply number of marks removed; behind it, of each that only notes another broker (home.lua), key and value
--
-- The marks are named by the walk, not declared: the broker is one Redis, never a cluster.
local walk, turn, epochs, unacked, parked = unpack(KEYS)
local pause_ms, life_s, count, mark_prefix, result_prefix = unpack(ARGV)
if not redis.call('SET', turn, '1', 'NX', 'PX', pause_ms) then return { 0 } end

local cursor, found = unpack(redis.call('SCAN', redis.call('GET', walk) or '0', 'MATCH', mark_prefix .. '*', 'COUNT', count))
local removed, reply = 0, { 0 }
for _, mark in ipairs(found) do
  if redis.call('TTL', mark) == -1 then
    local result = result_prefix ~= '' and result_prefix .. string.sub(mark, #mark_prefix + 1) or ''
    if orphan_mark({ mark, epochs, unacked, parked }, { result }) == 1 then
      removed = removed + redis.call('DEL', mark)
    else
      local value = redis.call('GET', mark)
      if value and string.find(value, '^b|') then
        reply[#reply + 1] = mark
        reply[#reply + 1] = value
      end
    end
  end
end
redis.call('SET', walk, cursor, 'EX', life_s)
reply[1] = removed
return reply
