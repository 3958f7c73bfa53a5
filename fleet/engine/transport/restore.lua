-- Puts messages whose lease ran out, or whose tags are named, back at the head of the queue they came from.
--
-- KEYS[1] hash    unacked: tag -> list key .. "\n" .. message
-- KEYS[2] zset    unacked index: tag -> time of the last lease renewal (Redis time, seconds)
-- KEYS[3] stream  bell
-- KEYS[4] string  time of the last sweep and the time until which nothing is swept (Redis time, seconds; ten leases)
-- KEYS[5] list    poison: messages whose workers died too often
-- ARGV[1] lease (seconds) · ARGV[2] most messages to put back (count) · ARGV[3] deaths that make a message poison
-- ARGV[4] prefix of the keys that count deaths · ARGV[5] their life (seconds) · ARGV[6] quiet period (seconds)
-- ARGV[7..] tags to put back
--
-- The lists and the counters are named by the entries, not declared: the broker is one Redis, never a cluster.
-- Reply: {messages put back, messages moved to poison}.
--
-- With tags, their holder gives them back: no death. Without, the sweep: their holder has stopped renewing, and each
-- sweep of a message counts as a death of its worker. When no worker swept for half a lease, Redis was away or
-- frozen and nobody could renew, or nobody was alive. Redis cannot tell which; so nothing is put back for a quiet
-- period, in which whoever lives renews, and an outage does not run every task in flight a second time.
local unacked, index, bell, swept, poison = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local lease, most, deaths = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local prefix, life, quiet = ARGV[4], ARGV[5], tonumber(ARGV[6])
local now = tonumber(redis.call('TIME')[1])
local restored, poisoned = 0, 0

local function put_back(tag, died)
  local entry = redis.call('HGET', unacked, tag)
  redis.call('ZREM', index, tag)
  if not entry then return end
  redis.call('HDEL', unacked, tag)
  local cut = string.find(entry, '\n', 1, true)
  local list, message = string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1)
  if died then
    local counter = prefix .. redis.sha1hex(message)
    local count = redis.call('INCR', counter)
    redis.call('EXPIRE', counter, life)
    if count >= deaths then
      redis.call('DEL', counter)
      redis.call('LPUSH', poison, message)
      poisoned = poisoned + 1
      return
    end
  end
  redis.call('RPUSH', list, message)
  restored = restored + 1
end

if #ARGV > 6 then
  for i = #ARGV, 7, -1 do put_back(ARGV[i], false) end
else
  local last = redis.call('GET', swept)
  local seen, quiet_until = 0, 0
  if last then
    local cut = string.find(last, ' ', 1, true)
    seen, quiet_until = tonumber(string.sub(last, 1, cut - 1)), tonumber(string.sub(last, cut + 1))
  end
  if now - seen > lease / 2 then quiet_until = now + quiet end
  redis.call('SET', swept, now .. ' ' .. quiet_until, 'EX', math.ceil(lease * 10))
  if now < quiet_until then return {0, 0} end
  local due = redis.call('ZRANGEBYSCORE', index, '-inf', now - lease, 'LIMIT', 0, most)
  for i = #due, 1, -1 do put_back(due[i], true) end  -- newest first: the oldest ends at the head
end
if restored > 0 then redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1) end
return {restored, poisoned}
