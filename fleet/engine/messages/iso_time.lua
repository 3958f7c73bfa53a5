-- Reads an ISO time as Celery writes it; without a zone it is UTC. The days by Howard Hinnant's `days_from_civil`. O(1).
--
-- KEYS  none
-- ARGV  text   the time
-- Reply Unix time, s, to a fraction of it; false: it is none
local year, month, day, hour, minute, second, zone =
  string.match(ARGV[TEXT], '^(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d%.?%d*)([^"]*)$')
if not year then return false end
local sign, hours, minutes = string.match(zone, '^([+-])(%d%d):(%d%d)$')
if not sign and zone ~= '' and zone ~= 'Z' then return false end
local shifted = (month + 9) % 12
local y = year - math.floor(shifted / 10)
local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
  + math.floor((153 * shifted + 2) / 5) + day - 719469
local ahead_s = sign and (hours * 60 + minutes) * (sign == '+' and 60 or -60) or 0
return days * 86400 + hour * 3600 + minute * 60 + second - ahead_s
