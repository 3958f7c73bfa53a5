-- Counts dead letters by pool and reason, jumping from one group to the next. O(most x log letters), reads only.
-- A group whose letters are all over is looked at, and not told.
--
-- KEYS  order   sorted set, scores 0: scope|microseconds|task id, in four scopes per letter
-- ARGV  oldest  microseconds of the oldest death that counts
--       most    groups looked at, at most (count)
--       under   `b`: all groups; `b:POOL`: those of one pool
--       after   scope after which to go on ('': from the first)
-- Reply the scope after which to go on ('': all were looked at); then for each group its scope (`b:POOL:REASON`),
--       letters, microseconds of the newest one
local order = KEYS[ORDER]
local oldest, most, under, after = unpack(ARGV)
local from, till = after == '' and '[' .. under .. ':' or '(' .. after .. '}', '(' .. under .. ';'
local reply = { '' }
for _ = 1, tonumber(most) do
  local first = redis.call('ZRANGEBYLEX', order, from, till, 'LIMIT', 0, 1)[1]
  local scope = first and string.match(first, '^([^|]*)|')
  if not scope then
    reply[1] = ''
    break
  end
  local past = '(' .. scope .. '}'
  local count = redis.call('ZLEXCOUNT', order, '[' .. scope .. '|' .. oldest, past)
  if count > 0 then
    local last = redis.call('ZREVRANGEBYLEX', order, past, '[' .. scope .. '|', 'LIMIT', 0, 1)[1]
    for _, value in ipairs({ scope, count, string.match(last, '^[^|]*|(%d+)|') }) do reply[#reply + 1] = value end
  end
  from, reply[1] = past, scope
end
return reply
