-- Withdraws tasks that wait, a stretch of one list or of one queue's parked set: into the unacked store, like a take, so
-- that none is lost if whoever withdraws them dies before it has told who waits. O(skip / 128 + count).
--
-- KEYS  list      of the queue's one priority; the next message is the last element. Unused for parked ones
--       unacked   hash: tag -> list key, newline, message
--       index     sorted set: tag -> time of the last lease renewal (Redis time, s)
--       suspects  hash: SHA-1 of a message that waits and is suspect -> whose death made it so
--       revoked   sorted set: task id -> time at which the mark may go
--       parked, order   see park.lua; what the queue opens at stays: it is looked at once, for nothing
-- ARGV  is_parked '1': of the parked set, the next to open first; '0': of the list, from its head
--       home      list key that is noted with what is withdrawn: that of the list, or of the one whose flow it is, where
--                 each message of the flow has a place (enter.lua)
--       skip      messages to skip (count)
--       count     messages to look at
--       most      messages to withdraw (count)
--       most_bytes  of a message; a longer one is left to whoever takes it
--       reply_bytes  bytes of messages in a reply, about
--       prefix    of the tags
--       mark      how the tag of a suspect ends
--       mark_prefix   of the keys of marks: a message that begins with {"mark":"ID" has one, which gets `t|tag`
--       bot_task  how a message names the task of bots: others stay, but for those of Celery's own whose end has passed
--       wanted    'all'; 'ids': those that follow; 'over': those whose end has passed, and the revoked ones
--       ids       of tasks
-- Reply {messages looked at, their bytes, the soonest end among those that stay (''; none), empty places that are left in
--       the list, tag, message, tag, ...}
--
-- Lists and sets are named by queue, not declared: the broker is one Redis, never a cluster. What is withdrawn from a list
-- is first overwritten, then removed in one go. That looks at all messages before it, so where others stay between them
-- it is left to the caller, once in many steps; takes skip such places.
local GONE = 'withdrawn'
local list, unacked, index, suspects, revoked, parked, order = unpack(KEYS)
local is_parked, home, skip, count, most, most_bytes, reply_bytes, prefix, mark, mark_prefix, bot_task, wanted = unpack(ARGV)
is_parked, skip, count, most = is_parked == '1', tonumber(skip), tonumber(count), tonumber(most)
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds + microseconds / 1000000
local has_suspects = redis.call('EXISTS', suspects) == 1
local has_revoked = wanted == 'over' and redis.call('EXISTS', revoked) == 1
local names, places, soonest, bytes, sent, looked_at = {}, {}, nil, 0, 0, 0
local reply = { 0, 0, '', 0 }
for i = IDS + 1, #ARGV do names[ARGV[i]] = true end

-- The messages of the stretch, the next one first: place, list key, message.
local function rows()
  local found = {}
  if is_parked then
    local ids = redis.call('ZRANGE', order, skip, skip + count - 1)
    local entries = #ids > 0 and redis.call('HMGET', parked, unpack(ids)) or {}
    for i = 1, #ids do
      local at, message = string.match(entries[i] or '', '^([^\n]*)\n[^\n]*\n(.*)$')
      found[i] = { ids[i], at or list, message or '' }
    end
  elseif redis.call('TYPE', list).ok == 'list' then
    local messages = redis.call('LRANGE', list, -skip - count, -skip - 1)
    for i = #messages, 1, -1 do found[#found + 1] = { -(skip + #found + 1), home, messages[i] } end
  end
  return found
end

local function is_over(message, is_bots)
  local at = string.find(message, '"fleet_expires"', 1, true)
  local ends = at and tonumber(string.match(message, '^"fleet_expires": ?([%d.]+)', at))
  local said = not at and string.find(message, '"expires": "', 1, true)  -- by a plain client of Celery
  local text = said and string.match(message, '^"expires": "([^"]*)"', said)
  if text then ends = iso_time({}, { text }) end
  if ends and ends < now then return true end
  if ends and (not soonest or ends < soonest) then soonest = ends end
  local id = is_bots and has_revoked and string.match(message, '"id": ?"([^"]*)"')
  return id and redis.call('ZSCORE', revoked, id) and true or false
end

local function is_wanted(message)
  if #message > most_bytes + 0 then return false end
  local is_bots = string.find(message, bot_task, 1, true) ~= nil
  if wanted == 'over' then return is_over(message, is_bots) end
  if not is_bots then return false end
  return wanted == 'all' or names[string.match(message, '"id": ?"([^"]*)"') or ''] == true
end

local function file(at, message)
  local tag = prefix .. #places
  if has_suspects and redis.call('HDEL', suspects, redis.sha1hex(message)) == 1 then tag = tag .. mark end
  redis.call('HSET', unacked, tag, at .. '\n' .. message)
  redis.call('ZADD', index, seconds, tag)
  local id = string.match(message, '^{"mark":"([^"]+)"')
  if id then redis.call('SET', mark_prefix .. id, 't|' .. tag, 'XX') end
  reply[#reply + 1], reply[#reply + 2] = tag, message
end

-- Returns how many empty places are left.
local function remove()
  if #places == 0 then return 0 end
  if not is_parked and home ~= list then redis.call('LREM', home, #places, GONE) end
  if is_parked then
    redis.call('HDEL', parked, unpack(places))
    redis.call('ZREM', order, unpack(places))
  elseif skip == 0 and #places == looked_at then
    redis.call('LTRIM', list, 0, -looked_at - 1)
  else
    for _, place in ipairs(places) do redis.call('LSET', list, place, GONE) end
    if wanted ~= 'all' then return #places end
    local is_near_head = skip < redis.call('LLEN', list) / 2
    redis.call('LREM', list, is_near_head and -#places or #places, GONE)
  end
  return 0
end

for _, row in ipairs(rows()) do
  if #places >= most or sent > reply_bytes + 0 then break end
  local place, at, message = unpack(row)
  looked_at, bytes = looked_at + 1, bytes + #message
  if is_wanted(message) then
    places[#places + 1], sent = place, sent + #message
    file(at, message)
  end
end
reply[1], reply[2], reply[3], reply[4] = looked_at, bytes, soonest and string.format('%.3f', soonest) or '', remove()
return reply
