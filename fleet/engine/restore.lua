-- Puts messages whose lease ran out, or whose tags are named, back at the head of the queue they came from.
--
-- KEYS[1] hash    unacked: tag -> list key .. "\n" .. message
-- KEYS[2] zset    unacked index: tag -> time of the last lease renewal (Redis time, seconds)
-- KEYS[3] stream  bell
-- KEYS[4] string  time of the last sweep (Redis time, seconds; expires after ten leases)
-- ARGV[1] lease (seconds) · ARGV[2] most messages to put back (count) · ARGV[3..] tags to put back whatever their lease
--
-- The lists are named by the unacked entries, not declared: the broker is one Redis, never a cluster.
-- Reply: number of messages put back.
--
-- When no worker swept for half a lease, Redis was away or frozen and nobody could renew: then nothing is put back
-- for one lease, so that an outage does not run every task in flight a second time.
local unacked, index, bell, swept = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lease, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1])

local function put_back(tag)
  local entry = redis.call('HGET', unacked, tag)
  redis.call('ZREM', index, tag)
  if not entry then return 0 end
  redis.call('HDEL', unacked, tag)
  local cut = string.find(entry, '\n', 1, true)
  redis.call('RPUSH', string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1))
  return 1
end

local restored = 0
if #ARGV > 2 then
  for i = #ARGV, 3, -1 do restored = restored + put_back(ARGV[i]) end
else
  local last = redis.call('GET', swept)
  local seen, quiet_until = 0, 0
  if last then
    local cut = string.find(last, ' ', 1, true)
    seen, quiet_until = tonumber(string.sub(last, 1, cut - 1)), tonumber(string.sub(last, cut + 1))
  end
  if now - seen > lease / 2 then quiet_until = now + lease end
  redis.call('SET', swept, now .. ' ' .. quiet_until, 'EX', math.ceil(lease * 10))
  if now < quiet_until then return 0 end
  local due = redis.call('ZRANGEBYSCORE', index, '-inf', now - lease, 'LIMIT', 0, most)
  for i = #due, 1, -1 do restored = restored + put_back(due[i]) end  -- newest first: the oldest ends at the head
end
if restored > 0 then redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1) end
return restored
