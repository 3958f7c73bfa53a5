-- Finishes several tasks of one pool and class, one after the other, as finish.lua, which is the function `finish` here.
-- What they all read and write is read once and written once: leases, checkouts, sums, the minute of the pool, what is
-- usual in it. Keys that a first task may make are written with it, and from the second task on at last.
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
-- What finish.lua and its functions keep from task to task. `writes`: by name, what is to be written at last; `held`: the
-- tags whose messages are leased still.
local kept = { now_us = seconds * 1000000 + microseconds, writes = {}, held = {} }
arguments.kept = kept

-- Where each task's own ARGV begin, the number of words of its pairs behind them; and which of them are these two.
local starts, at, fence_at, checkouts_at = {}, REST + size, 0, 0
for i = 1, tasks do
  starts[i], at = at, at + #places + 1
  at = at + tonumber(ARGV[at])
end
for k, place in ipairs(places) do
  if place == FENCE then fence_at = k end
  if place == CHECKOUTS then checkouts_at = k end
end

local function look_at_leases()
  local fences = {}
  for i = 1, tasks do
    local fence = ARGV[starts[i] + fence_at]
    if fence ~= '' then fences[#fences + 1] = fence end
  end
  if #fences == 0 then return end
  for k, renewed_at in ipairs(redis.call('ZMSCORE', keys[INDEX], unpack(fences))) do kept.held[fences[k]] = renewed_at end
end

-- Checks the bots of all tasks in, as finish.lua those of one. All is read before something is written.
local function check_in()
  local members, tokens, bots = {}, {}, {}
  for i = 1, tasks do
    for bot, token in string.gmatch(ARGV[starts[i] + checkouts_at], '([^|\n]+)|([^\n]+)') do
      members[#members + 1], tokens[#tokens + 1], bots[#bots + 1] = bot .. '|' .. token, token, bot
    end
  end
  if #members == 0 then return end
  local ends, scores = redis.call('ZMSCORE', keys[LEASES], unpack(members)), redis.call('ZMSCORE', keys[BOTS], unpack(bots))
  local gone, freed, loads, placed = {}, {}, {}, {}
  for k, member in ipairs(members) do
    if ends[k] and not gone[member] then
      gone[member], gone[#gone + 1], freed[#freed + 1] = true, member, tokens[k]
      local score = loads[bots[k]] or tonumber(scores[k] or -1)
      loads[bots[k]] = score >= UNIT and score - UNIT or score
    end
  end
  if #gone == 0 then return end
  for bot, score in pairs(loads) do
    if score >= 0 then placed[#placed + 1], placed[#placed + 2] = string.format('%.0f', score), bot end
  end
  redis.call('HDEL', keys[CLAIMS], unpack(freed))
  redis.call('ZREM', keys[LEASES], unpack(gone))
  if #placed > 0 then redis.call('ZADD', keys[BOTS], 'XX', unpack(placed)) end
end

if tasks > 1 then kept.are_checked_in = pcall(check_in) end  -- else each task meets what is wrong itself
look_at_leases()

local replies = {}
for i = 1, tasks do
  keys[FIRST], kept.is_last = KEYS[common + i], i == tasks
  for k, place in ipairs(places) do arguments[place] = ARGV[starts[i] + k] end
  at = starts[i] + #places + 1
  local words = tonumber(ARGV[at])
  for k = #arguments, size + words + 1, -1 do arguments[k] = nil end
  for k = 1, words do arguments[size + k] = ARGV[at + k] end
  local is_finished, reply = pcall(finish, keys, arguments)
  local failure = not is_finished and tostring(type(reply) == 'table' and reply.err or reply)
  if failure and string.find(failure, 'READONLY', 1, true) then return redis.error_reply(failure) end
  replies[i] = failure and ERROR .. failure or reply
end
for _, write in pairs(kept.writes) do write() end
return tasks == 1 and replies[1] or replies
