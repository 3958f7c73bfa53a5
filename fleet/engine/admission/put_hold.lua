-- Holds a queue: its tasks wait until the hold opens or somebody lifts it. The operator's gate is another key. O(1).
--
-- KEYS  hold       string: JSON of a `Wait` (fleet/waits.py)   TTL: until it opens; with probes, or without a time, longer
-- ARGV  wait       JSON of the new one; its times are in s
--       beyond_ms  life of a hold behind its opening, ms: so long nobody need renew it
--       probes     life behind the opening of one with probes: so many of their intervals, if that is longer (count)
-- Reply 1 it holds, 0 not: what holds the queue already is stricter or opens later, or the new one would be open
--
-- Of two holds the stricter one stands, of two as strict the one that opens later, whatever their causes: what the other
-- one was put for is met again, and put again, by the first task that comes through.
local hold = KEYS[HOLD]
local wait, beyond_ms, probes = unpack(ARGV)
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds + microseconds / 1000000

local function number(value) return type(value) == 'number' and value or 0 end

-- When a hold opens, s; one whose opening nobody knows ends with its key.
local function opening(of, life_ms)
  return type(of.opens_at) == 'number' and of.opens_at or now + life_ms / 1000
end

local function lowest(of) return type(of.lowest) == 'number' and of.lowest or -1 end

local new = cjson.decode(wait)
local every_s = number(new.probe_every_s)
if every_s > 0 and type(new.opens_at) ~= 'number' then new.opens_at = now + every_s end
local life_ms = math.max(beyond_ms, probes * every_s * 1000)
local opens_at = opening(new, life_ms)
if type(new.opens_at) == 'number' then
  local left_ms = math.max(0, math.ceil((opens_at - now) * 1000))
  if left_ms == 0 and every_s == 0 then return 0 end
  life_ms = every_s > 0 and left_ms + life_ms or left_ms
end
local is_known, old = pcall(cjson.decode, redis.call('GET', hold) or '')
if is_known and type(old) == 'table' then
  local is_as_strict = lowest(old) == lowest(new)
  if lowest(old) < lowest(new) then return 0 end
  if is_as_strict and opening(old, redis.call('PTTL', hold)) > opens_at then return 0 end
end
redis.call('SET', hold, cjson.encode(new), 'PX', string.format('%.0f', life_ms))
return 1
