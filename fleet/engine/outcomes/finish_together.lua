-- Finishes several tasks of one pool and class, one after the other, as finish.lua, which is the function `finish` here.
-- What they all read and write is read once and written once: sums, the minute of the pool, what is usual in it.
--
-- A task whose end fails for a reason of its own spoils none of the others.
--
-- KEYS  names      those of finish.lua behind `result`, all of them; then the `result` of each task
-- ARGV  common     number of KEYS that all tasks have
--       places     numbers of those ARGV of finish.lua that are a task's own, with blanks between
--       size       number of ARGV of finish.lua before its pairs
--       rest       so many ARGV of finish.lua, of which the places of a task's own say nothing; then of each task its own, the
--                  number of words of its pairs, and its pairs
-- Reply of each task, in a list where there are several: as finish.lua; or `!` and the error. An error for all, when the
--       server is no master any more: whoever gets it looks for the new one
local ERROR = '!'
-- Place of `result` among the KEYS of finish.lua.
local FIRST = 1
local places, common, size = {}, NAMES + ARGV[COMMON], tonumber(ARGV[SIZE])
local tasks = #KEYS - common
for place in string.gmatch(ARGV[PLACES], '%d+') do places[#places + 1] = tonumber(place) end
local keys, arguments = { '' }, { unpack(ARGV, REST + 1, REST + size) }
for k = 1, common do keys[k + 1] = KEYS[k] end

local seconds, microseconds = unpack(redis.call('TIME'))
-- What finish.lua and its functions keep from task to task. `writes`: by name, what is to be written at last.
local kept = { now_us = seconds * 1000000 + microseconds, writes = {} }
arguments.kept = kept

local at, replies = REST + size, {}
for i = 1, tasks do
  keys[FIRST] = KEYS[common + i]
  for k, place in ipairs(places) do arguments[place] = ARGV[at + k] end
  at = at + #places + 1
  local words = tonumber(ARGV[at])
  for k = #arguments, size + words + 1, -1 do arguments[k] = nil end
  for k = 1, words do arguments[size + k] = ARGV[at + k] end
  at = at + words
  local is_finished, reply = pcall(finish, keys, arguments)
  local failure = not is_finished and tostring(type(reply) == 'table' and reply.err or reply)
  if failure and string.find(failure, 'READONLY', 1, true) then return redis.error_reply(failure) end
  replies[i] = failure and ERROR .. failure or reply
end
for _, write in pairs(kept.writes) do write() end
return tasks == 1 and replies[1] or replies
