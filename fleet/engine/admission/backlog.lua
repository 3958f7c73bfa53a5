-- Tells of queues how many messages wait in each of their lists, and when the one that is next was queued. O(lists).
--
-- KEYS  lists    of queues, the most urgent one of each: its name, to which the endings of the others are added; only read.
--                Something else of such a name is nobody's message
-- ARGV  fair     what the keys of flows begin with, see flows.py
--       endings  of the lists of a queue: one per priority, with the lists of plain clients' own steps
-- Reply for each queue a flat list of what isn't empty: number of the ending, length, Unix time in seconds as text ('': its
--       producer did not say, or who asks may not read messages)
--
-- Lists are named by queue, not declared: the broker is one Redis, never a cluster.
local GONE = 'withdrawn'
local reply, fair = {}, ARGV[FAIR]

-- Returns the next message of the flow whose turn it is; false: there is none, or who asks may not read flows.
local function next_of(list)
  local flows = redis.pcall('ZRANGE', fair .. 'ring:' .. list, 0, 0)
  if not flows[1] then return false end
  local old = redis.pcall('LINDEX', fair .. 'old:' .. flows[1] .. ':' .. list, -1)
  return type(old) == 'string' and old or redis.pcall('LINDEX', fair .. 'flow:' .. flows[1] .. ':' .. list, -1)
end

for i, list in ipairs(KEYS) do
  local row = {}
  for k = ENDINGS + 1, #ARGV do
    local key = list .. ARGV[k]
    local length = redis.pcall('LLEN', key)
    if type(length) == 'number' and length > 0 then
      local message = redis.pcall('LINDEX', key, -1)
      if message == GONE then message = next_of(key) end
      local queued_at = type(message) == 'string' and string.match(message, '"queued_at": ?(%d+%.?%d*)')
      row[#row + 1], row[#row + 2], row[#row + 3] = k - ENDINGS, length, queued_at or ''
    end
  end
  reply[i] = row
end
return reply
