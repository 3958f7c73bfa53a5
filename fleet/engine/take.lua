-- Acknowledges finished messages, then moves waiting ones from the queues into the unacked store, in one atomic step.
-- There is no moment at which a message is neither in its queue nor in the unacked store.
--
-- KEYS[1] hash    unacked: tag -> list key .. "\n" .. message as published
-- KEYS[2] zset    unacked index: tag -> time of the last lease renewal (Redis time, seconds)
-- KEYS[3] stream  bell: one entry per publish, capped at one; its last id tells a sleeping worker what it has seen
-- KEYS[4 .. 3+q]  strings: gates of the q queues: the lowest priority that may be taken (-1: none); absent: open
-- KEYS[4+q ..]    lists: for each priority, the most urgent first, the q queues in the order of their gates
-- ARGV[1] most messages to take (count) · ARGV[2] how many of them from the least urgent class that waits (count)
-- ARGV[3] prefix of the tags to hand out · ARGV[4] q (count) · ARGV[5..] tags to acknowledge
--
-- Reply: {tag, list key, message, tag, list key, message, ...}, or {bell id} when nothing waits.
-- Both unacked keys live as long as they have entries: a TTL here would be a way to lose tasks.
local unacked, index, bell = KEYS[1], KEYS[2], KEYS[3]
local wanted, guarded, prefix, queues = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local first = 4 + queues

for i = 5, #ARGV do
  redis.call('HDEL', unacked, ARGV[i])
  redis.call('ZREM', index, ARGV[i])
end
if wanted <= 0 then return {} end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local gates = redis.call('MGET', unpack(KEYS, 4, 3 + queues))
local reply, taken = {}, 0

local function take_from(i, most)
  local gate = gates[(i - first) % queues + 1]
  if gate and math.floor((i - first) / queues) > tonumber(gate) then return end
  while taken < most do
    local message = redis.call('RPOP', KEYS[i])
    if not message then return end
    taken = taken + 1
    local tag = prefix .. taken
    redis.call('HSET', unacked, tag, KEYS[i] .. '\n' .. message)
    redis.call('ZADD', index, now, tag)
    reply[#reply + 1] = tag
    reply[#reply + 1] = KEYS[i]
    reply[#reply + 1] = message
  end
end

for i = #KEYS, first, -1 do
  if taken >= guarded then break end
  take_from(i, guarded)
end
for i = first, #KEYS do
  if taken >= wanted then break end
  take_from(i, wanted)
end

if taken > 0 then return reply end
local last = redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1)
return {last[1] and last[1][1] or '0-0'}
