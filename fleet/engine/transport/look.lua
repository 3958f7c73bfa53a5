-- Finds messages of producers that do not say so: brings those home that plain Celery clients queued under priority steps
-- of their own, and, where there are many queues, finds out which have messages, so that take.lua need not look at each
-- list with every take (also messages that were put back after a crash). O(queues), and O(queues x priorities) with an
-- index.
--
-- KEYS  ours        set: names of the queues that are taken from                TTL of all but `looked`: life_s
--       looked      string: somebody has looked a moment ago                    TTL: pause_ms
--       bell        stream, one entry
--       waiting     sorted sets, one per priority: names of queues that may have messages of it
-- ARGV  pause_ms    least time between two looks, ms
--       life_s      life of what was found, s
--       separator   kombu's, in list keys
--       most        messages to bring home (count)
--       again_ms    pause when there are more than that, ms
--       binding     what the keys of kombu's bindings begin with
--       list_prefix before queues, in list keys
--       is_indexed  '1': find out which queues have messages
--       fair        what the keys of flows begin with: they are found even where a list has lost their places
--       foreign     number of endings of foreign lists
--       rest        priority steps, one per priority; pairs of an ending and the step of what lies there; names of the queues
-- Reply 1 when it has looked, 2 when there is more to bring home, 0 when somebody else has just done so
--
-- The lists are named by queue, not declared: the broker is one Redis, never a cluster. A queue that has no messages
-- any more is struck off by take.lua. What is brought home keeps its order, behind what is there.
local ours, looked, bell = unpack(KEYS)
local pause_ms, life_s, separator, most, again_ms, binding, list_prefix, is_indexed, fair, foreign = unpack(ARGV)
local priorities = #KEYS - WAITING
local foreign_at = REST + priorities
local queues_at = foreign_at + 2 * foreign
local moved = 0
most = tonumber(most)

if not redis.call('SET', looked, '1', 'NX', 'PX', pause_ms) then return 0 end

local function list_of(queue, step)
  return list_prefix .. (step == '0' and queue or queue .. separator .. step)
end

-- True for a list of Celery messages that isn't a queue of its own, which somebody named like a priority of ours.
local function is_of_queue(list)
  if redis.call('TYPE', list).ok ~= 'list' then return false end
  if redis.call('EXISTS', binding .. string.sub(list, #list_prefix + 1)) == 1 then return false end
  return string.find(redis.call('LINDEX', list, -1), '"delivery_info"', 1, true) ~= nil
end

local function bring_home(queue)
  local lists = {}
  for i = 1, foreign do lists[i] = list_prefix .. queue .. ARGV[foreign_at + 2 * i - 1] end
  if redis.call('EXISTS', unpack(lists)) == 0 then return end
  for i, list in ipairs(lists) do
    if is_of_queue(list) then
      local home = list_of(queue, ARGV[foreign_at + 2 * i])
      while moved < most and redis.call('RPOPLPUSH', list, home) do moved = moved + 1 end
    end
  end
end

local function index(queue)
  local lists = {}
  for class = 1, priorities do lists[class] = list_of(queue, ARGV[REST + class]) end
  if redis.call('EXISTS', fair .. 'has:' .. list_prefix .. queue, unpack(lists)) > 0 then
    for class = 1, priorities do
      if redis.call('EXISTS', lists[class], fair .. 'ring:' .. lists[class]) > 0 then redis.call('ZADD', KEYS[WAITING + class], 0, queue) end
    end
  end
  redis.call('SADD', ours, queue)
end

for i = queues_at + 1, #ARGV do
  bring_home(ARGV[i])
  if is_indexed == '1' then index(ARGV[i]) end
end
if is_indexed == '1' then
  redis.call('EXPIRE', ours, life_s)
  for class = 1, priorities do redis.call('EXPIRE', KEYS[WAITING + class], life_s) end
end
if moved == 0 then return 1 end
redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
if moved < most then return 1 end
redis.call('PEXPIRE', looked, again_ms)
return 2
