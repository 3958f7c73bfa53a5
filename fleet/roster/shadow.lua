-- Shall another bot be asked what this one has just answered? A ration of calls goes to the most suspicious first; draws the
-- other bot. O(log bots).
--
-- Each task of the kind earns a share of a call. Bots under suspicion have the first claim on what was earned, those with
-- an odd answer lately the next, and all others what is left then.
--
-- KEYS  ration       string: calls that were earned and are not used yet                       TTL: life_s
--       grades, doubted, bots, quarantined   see grade.lua
-- ARGV  number       of the bot
--       class_       under which such second answers are kept
--       pool         its name
--       size         bots of the pool
--       share        of a call that a task earns
--       life_s       life of the ration, s
-- Reply number of the bot to be asked, 0: none
local ration, grades, doubted, bots, quarantined = unpack(KEYS)
local number, class_, pool, size, share, life_s = unpack(ARGV)
-- Calls that are kept at most; that must be there for a bot with an odd answer lately, and for any other; in what share of
-- the tasks of those a second answer is wanted at all, so that the turn of bots and that of calls do not beat.
local MOST_KEPT, FOR_ODD, FOR_ALL, CHANCE = 20, 3, 6, 0.2
-- Draws of another bot at most.
local DRAWS = 8

local earned = math.min(MOST_KEPT, tonumber(redis.call('GET', ration) or '0') + share)
local place = HEAD_BYTES + number * ROW_BYTES
local raw = redis.call('GETRANGE', grades, place, place + ROW_BYTES - 1)
local row = #raw == ROW_BYTES and { struct.unpack(ROW_FORMAT, raw) } or { ROW_ZEROS }
local doubt = redis.call('ZSCORE', doubted, string.format('%s|%s-%03d', class_, pool, number))
local evidence = tonumber(doubt or '0')
local wanted = evidence > 0 and 1 or row[WRONG] > 0 and FOR_ODD or FOR_ALL
local seconds, microseconds = unpack(redis.call('TIME'))
math.randomseed((seconds * 1000000 + microseconds) % 2147483647)

-- Another bot that nobody doubts; 0: none was drawn.
local function another()
  for _ = 1, DRAWS do
    local other = math.random(size)
    local bot = string.format('%s-%03d', pool, other)
    if other ~= tonumber(number) and not redis.call('ZSCORE', quarantined, bot) and redis.call('ZSCORE', bots, bot)
      and not redis.call('ZSCORE', doubted, class_ .. '|' .. bot) then
      return other
    end
  end
  return 0
end

local is_turn = earned >= wanted and evidence < ENOUGH and (evidence > 0 or math.random() < CHANCE)
local other = is_turn and another() or 0
if other > 0 then earned = earned - 1 end
redis.call('SET', ration, string.format('%.3f', earned), 'EX', life_s)
return other
