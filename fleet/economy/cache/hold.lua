-- Tells how the task is asked for which equal ones wait: for how long it has this, or that it has no answer for them.
--
-- KEYS  asking, twins   see look.lua
-- ARGV  task, priority
--       how       `now`, `later` or `each` as there; `over`: the next one is to be asked
--       lease_s   for how long
-- Reply tasks that waited and are to look again: all of them for `later` and `each`, the first one when it is `over`
local asking, twins = unpack(KEYS)
local task, priority, how, lease_s = unpack(ARGV)
local who = string.match(redis.call('GET', asking) or '', '^%l+ %d+ (.*)$')
if who and who ~= task then return {} end  -- another one has taken over
if how == 'over' then
  redis.call('DEL', asking)
  local first = redis.call('ZPOPMIN', twins)
  return { first[1] }
end
redis.call('SET', asking, how .. ' ' .. priority .. ' ' .. task, 'EX', lease_s)
if how == 'now' then return {} end
local waiting = redis.call('ZRANGE', twins, 0, -1)
redis.call('DEL', twins)
return waiting
