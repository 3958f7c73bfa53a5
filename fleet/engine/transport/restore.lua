-- Puts messages whose lease ran out, or whose tags are named, back at the head of the queue they came from.
--
-- KEYS  unacked        hash: tag -> list key, newline, message
--       index          sorted set: tag -> time of the last lease renewal (Redis time, s)
--       bell           stream, one entry
--       swept          string: time of the last sweep and time until which nothing is swept (Redis time, s)
--                                                                                      TTL: ten leases
--       poison         list: messages whose workers died too often
-- ARGV  lease_s        life of a lease, s
--       most           messages to put back (count)
--       deaths         that make a message poison (count)
--       deaths_prefix  of the keys that count deaths                                   TTL of these: deaths_life_s
--       deaths_life_s  s
--       quiet_s        quiet period, s
--       tags           to put back; none: the sweep
-- Reply {messages put back, messages moved to poison}
--
-- The lists and the counters are named by the entries, not declared: the broker is one Redis, never a cluster. What
-- holds messages has no TTL: that would be a way to lose tasks.
--
-- With tags, their holder gives them back: no death. Without, the sweep: their holder has stopped renewing, and each
-- sweep of a message counts as a death of its worker. When no worker swept for half a lease, Redis was away or
-- frozen and nobody could renew, or nobody was alive. Redis cannot tell which; so nothing is put back for a quiet
-- period, in which whoever lives renews, and an outage does not run every task in flight a second time.
local unacked, index, bell, swept, poison = unpack(KEYS)
local lease_s, most, deaths, deaths_prefix, deaths_life_s, quiet_s = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])
local restored, poisoned = 0, 0

-- Count a death; true when it makes the message poison.
local function is_poison(message)
  local counter = deaths_prefix .. redis.sha1hex(message)
  local count = redis.call('INCR', counter)
  redis.call('EXPIRE', counter, deaths_life_s)
  if count < tonumber(deaths) then return false end
  redis.call('DEL', counter)
  return true
end

local function put_back(tag, died)
  local entry = redis.call('HGET', unacked, tag)
  redis.call('ZREM', index, tag)
  if not entry then return end
  redis.call('HDEL', unacked, tag)
  local cut = string.find(entry, '\n', 1, true)
  local list, message = string.sub(entry, 1, cut - 1), string.sub(entry, cut + 1)
  if died and is_poison(message) then
    redis.call('LPUSH', poison, message)
    poisoned = poisoned + 1
  else
    redis.call('RPUSH', list, message)
    restored = restored + 1
  end
end

-- Note this sweep; true while nothing is to be swept.
local function is_quiet()
  local seen, quiet_until = string.match(redis.call('GET', swept) or '0 0', '^(%S+) (%S+)$')
  if now - seen > lease_s / 2 then quiet_until = now + quiet_s end
  redis.call('SET', swept, now .. ' ' .. quiet_until, 'EX', math.ceil(lease_s * 10))
  return now < tonumber(quiet_until)
end

if #ARGV > TAGS then
  for i = #ARGV, TAGS + 1, -1 do put_back(ARGV[i], false) end
else
  if is_quiet() then return { 0, 0 } end
  local due = redis.call('ZRANGEBYSCORE', index, '-inf', now - lease_s, 'LIMIT', 0, most)
  for i = #due, 1, -1 do put_back(due[i], true) end  -- newest first: the oldest ends at the head
end
if restored > 0 then redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1) end
return { restored, poisoned }
