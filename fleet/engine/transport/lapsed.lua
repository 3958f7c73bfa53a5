-- Names the messages whose lease ran out, for a sweep: what becomes of each is decided outside. O(log held + most).
--
-- KEYS  index    sorted set: tag -> time of the last lease renewal (Redis time, s); only read
--       unacked  hash: tag -> list key, newline, message; only read
--       swept    string: time of the last sweep and time until which nothing is swept (Redis time, s)   TTL: ten leases
-- ARGV  lease_s  life of a lease, s
--       most     tags to name (count)
--       quiet_s  quiet period, s
-- Reply pairs tag, list key that its message was taken from ('': it has none any more), the oldest first
--
-- When no worker swept for half a lease, Redis was away or frozen and nobody could renew, or nobody was alive. Redis
-- cannot tell which; so nothing is named for a quiet period, in which whoever lives renews, and an outage does not run
-- every task in flight a second time.
local index, unacked, swept = unpack(KEYS)
local lease_s, most, quiet_s = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])

local seen, quiet_until = string.match(redis.call('GET', swept) or '0 0', '^(%S+) (%S+)$')
if now - seen > lease_s / 2 then quiet_until = now + quiet_s end
redis.call('SET', swept, now .. ' ' .. quiet_until, 'EX', math.ceil(lease_s * 10))
if now < tonumber(quiet_until) then return {} end
local lapsed = {}
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now - lease_s, 'LIMIT', 0, most)) do
  local list = string.match(redis.call('HGET', unacked, tag) or '', '^([^\n]*)\n')
  lapsed[#lapsed + 1], lapsed[#lapsed + 2] = tag, list or ''
end
return lapsed
