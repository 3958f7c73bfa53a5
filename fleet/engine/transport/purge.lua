-- Counts what waits in the lists of one queue, and deletes it if that is meant. O(lists), and of Redis' own to free them.
--
-- KEYS  epochs    hash: list key -> times it was filled from empty: what was queued there under idempotency keys may be
--                 queued again at once (see orphan_mark.lua)
--       lists     of the queue: Fleet's priority steps, then those of other clients
-- ARGV  own       number of Fleet's
--       binding   what the keys of kombu's bindings begin with: a queue named like another client's list is spared
--       list_prefix  before queues, in list keys
--       is_meant  '1': delete; '0': count
--       fair      what the keys of flows begin with, see flows.py
-- Reply number of messages
local own, binding, list_prefix, is_meant, fair = unpack(ARGV)
local count = 0

-- Deletes the flows of a list; each of their messages is counted by its place there.
local function delete_flows(list)
  local ring = fair .. 'ring:' .. list
  for _, flow in ipairs(redis.call('ZRANGE', ring, 0, -1)) do
    redis.call('UNLINK', fair .. 'flow:' .. flow .. ':' .. list, fair .. 'old:' .. flow .. ':' .. list)
  end
  redis.call('UNLINK', ring, fair .. 'olds:' .. list, fair .. 'has:' .. list)
end

for i = LISTS + 1, #KEYS do
  local list = KEYS[i]
  if is_meant == '1' and i - LISTS <= tonumber(own) then delete_flows(list) end
  local is_foreign = i - LISTS > tonumber(own) and redis.call('EXISTS', binding .. string.sub(list, #list_prefix + 1)) == 1
  if not is_foreign and redis.call('TYPE', list).ok == 'list' then
    count = count + redis.call('LLEN', list)
    if is_meant == '1' then
      redis.call('UNLINK', list)
      redis.call('HINCRBY', KEYS[EPOCHS], list, 1)
    end
  end
end
return count
