-- Acknowledges finished messages, then moves waiting ones from the queues into the unacked store, in one atomic step.
-- There is no moment at which a message is neither in its queue nor in the unacked store.
--
-- KEYS[1] hash    unacked: tag -> list key .. "\n" .. message as published
-- KEYS[2] zset    unacked index: tag -> time of the last lease renewal (Redis time, seconds)
-- KEYS[3] stream  bell: one entry per publish, capped at one; its last id tells a sleeping worker what it has seen
-- KEYS[4..] lists queues in the order in which they are to be served (priority first)
-- ARGV[1] most messages to take (count) · ARGV[2] prefix of the tags to hand out · ARGV[3..] tags to acknowledge
--
-- Reply: {tag, list key, message, tag, list key, message, ...}, or {bell id} when nothing waits.
-- Both unacked keys live as long as they have entries: a TTL here would be a way to lose tasks.
local unacked, index, bell = KEYS[1], KEYS[2], KEYS[3]
local wanted, prefix = tonumber(ARGV[1]), ARGV[2]

for i = 3, #ARGV do
  redis.call('HDEL', unacked, ARGV[i])
  redis.call('ZREM', index, ARGV[i])
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local reply, taken = {}, 0
for i = 4, #KEYS do
  while taken < wanted do
    local message = redis.call('RPOP', KEYS[i])
    if not message then break end
    taken = taken + 1
    local tag = prefix .. taken
    redis.call('HSET', unacked, tag, KEYS[i] .. '\n' .. message)
    redis.call('ZADD', index, now, tag)
    reply[#reply + 1] = tag
    reply[#reply + 1] = KEYS[i]
    reply[#reply + 1] = message
  end
  if taken >= wanted then break end
end

if taken > 0 or wanted == 0 then return reply end
local last = redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1)
return {last[1] and last[1][1] or '0-0'}
