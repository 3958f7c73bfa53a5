-- Acknowledges finished messages, then moves waiting ones from the queues into the unacked store, in one atomic step.
-- There is no moment at which a message is neither in its queue nor in the unacked store.
--
-- KEYS  unacked      hash: tag -> list key, newline, message as published
--       index        sorted set: tag -> time of the last lease renewal (Redis time, s)
--       bell         stream: one entry per publish, capped at one; its last id tells a sleeping worker what it has seen
--       suspects     hash: SHA-1 of a message that waits and is suspect -> whose death made it so (restore.lua)   TTL kept
--       ours         set: names of the queues to take from; read only when ARGV names none (look.lua writes it)
--       parked, openings   what waits until a time, see park.lua
--       epochs       hash: list key -> times it was filled from empty
--       revoked      sorted set: task id -> time at which the mark may go (Redis time, s)
--       over         list: messages of bot tasks whose end has passed; whoever has time ends them (overdue.py)
--       ends         sorted set: queue -> the soonest end of a task that waits there
--       waiting      sorted sets, one per priority, the most urgent first: names of queues that may have messages of it
-- ARGV  wanted       most messages to take (count)
--       guarded      how many of them from the least urgent class that waits (count)
--       prefix       of the tags to hand out
--       gate_prefix  of the gates' keys
--       separator    kombu's, in list keys
--       list_prefix  before queues, in list keys
--       mark         how the tag of a message ends that is suspect: from here on the tag alone tells
--       mark_prefix  of the keys of marks: a message that begins with {"mark":"ID" has one, which gets `t|tag`
--       order_prefix, waiting_prefix   see open_parked.lua
--       most_bytes   of a message; of a longer one only `kept_bytes` of its head and of its tail are kept, behind a mark
--                    and its size (message.py refuses it)
--       kept_bytes
--       cut_mark
--       bot_task     how a message names the task of bots
--       fair         what the keys of flows begin with: a queue that has any is served as next_of_flows.lua tells
--       acks         number of tags to acknowledge
--       shut         number of queues of which this caller wants none now
--       rest         priority steps, one per priority; as many queues that were served last ('': none); the tags to
--                    acknowledge; names of the queues that are shut; those of the queues to take from (none: those of
--                    `ours`)
-- Reply {tag, list key, message, tag, list key, message, ...} and behind them, if there are any, the tags of revoked tasks
--       in one string; or {bell id, ms until something opens (-1: nothing will)} when nothing waits; {} for acks alone,
--       and when all that was met is over: take again
--
-- Lists and gates are named by queue, not declared: the broker is one Redis, never a cluster. A gate is a string, the
-- lowest priority that may be taken (-1, or no number: none); absent: open. Beside it, under the gate's name and ":room":
-- "n0 n1 n2 n3 n4 given", how many more tasks of each priority may be taken, each counting those of more urgent ones
-- (absent: any number), and what n4 was at first. And under ":hold": JSON of a `Wait` (fleet/waits.py), a gate of Fleet's
-- own that opens by itself. One with `probe_every_s` lets one task through when its time has come, the most urgent one,
-- and moves its time on by that. Queues of one priority take turns: the next one after the one served last.
--
-- With queues in ARGV, O(queues); else O(queues that wait and are not open to us). There a queue that is stopped is struck
-- off until it opens, is opened (lift.lua, gates.py), or is looked at (look.lua): it must not cost every take a look.
--
-- What is parked and due is opened first, a bounded number: one look when there is none. Revoked tasks are taken like
-- others, for it is their worker that tells who waits for them; the mark then need not outlive a repeated delivery.
--
-- What is over is put aside in bulk, a bounded number a call and list, so that no slot, bot or probe is used for it.
--
-- Both unacked keys live as long as they have entries: a TTL here would be a way to lose tasks.
-- Waiting queues looked at in one go.
local CHUNK = 16
-- Tags told to Redis in one command: Lua takes some thousands of arguments at most.
local TAGS = 1000
-- Most parked messages opened in one go (count), and the life of a mark whose task was met, s.
local MOST, MET_LIFE_S = 256, 604800
-- Most messages put aside because they are over (count); where the header with a task's end is: in the last so many bytes.
local MOST_OVER, HEADERS_BYTES = 256, 4096
-- Messages that are popped at once (count), and the first version that does so quickly from the end of a long list: 7.0.
local POPPED, QUICK_POPS = 64, 458752
-- What lies in a list where a message was withdrawn, see withdraw.lua.
local GONE = 'withdrawn'
local unacked, index, bell, suspects, ours, parked, openings, epochs, revoked, over, ends = unpack(KEYS)
local wanted, guarded, prefix, gate_prefix, separator, list_prefix, mark, mark_prefix, order_prefix, waiting_prefix,
  most_bytes, kept_bytes, cut_mark, bot_task, fair, acks, shut = unpack(ARGV)
wanted, guarded, most_bytes = tonumber(wanted), tonumber(guarded), tonumber(most_bytes)
local priorities = #KEYS - WAITING
local served_at = REST + priorities
local acks_at = served_at + priorities
local shut_at = acks_at + acks
local queues_at = shut_at + shut
local queues = #ARGV - queues_at

for first = acks_at + 1, shut_at, TAGS do
  local last = math.min(first + TAGS - 1, shut_at)
  redis.call('HDEL', unacked, unpack(ARGV, first, last))
  redis.call('ZREM', index, unpack(ARGV, first, last))
end
if wanted <= 0 then return {} end

local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds .. '.' .. string.format('%06d', microseconds)
local gates, rooms, holds, flows, reply, taken, put_aside = {}, {}, {}, {}, {}, 0, 0
local has_quick_pops = (tonumber(redis['REDIS_VERSION_NUM']) or 0) >= QUICK_POPS
local has_suspects, has_revoked, hold_opens_at
local is_shut = {}
for i = shut_at + 1, queues_at do is_shut[ARGV[i]] = true end

-- When the first opens of what is parked or struck off, s; nil: nothing will.
local function first_opening()
  local _, at = unpack(redis.call('ZRANGE', openings, 0, 0, 'WITHSCORES'))
  return at
end

-- The tags of revoked tasks among what was taken, in one string.
local function tags_of_revoked()
  local tags = {}
  for i = 1, #reply, 3 do
    local id = string.match(reply[i + 2], '"id": ?"([^"]*)"')
    if id and redis.call('ZSCORE', revoked, id) then
      redis.call('ZADD', revoked, seconds + MET_LIFE_S, id)
      tags[#tags + 1] = reply[i]
    end
  end
  return table.concat(tags, ' ')
end

-- Notes what a hold lets through, if it is not over. One that cannot be read stops all, as such a gate does.
local function read_hold(queue, text)
  local is_known, wait = pcall(cjson.decode, text)
  wait = is_known and type(wait) == 'table' and wait or {}
  local hold = { wait = wait, lowest = tonumber(wait.lowest) or -1, opens_at = tonumber(wait.opens_at) }
  local is_due = hold.opens_at and hold.opens_at <= tonumber(now)
  hold.every_s = tonumber(wait.probe_every_s) or 0
  hold.probes = is_due and hold.every_s > 0
  if is_due and not hold.probes then return end
  if hold.opens_at and not is_due then hold_opens_at = math.min(hold_opens_at or hold.opens_at, hold.opens_at) end
  holds[queue] = hold
end

-- True when nothing of this priority may be taken; `is_turn`: in the turn of the least urgent, which no probe is for.
local function is_stopped(queue, step, is_turn)
  if gates[queue] == nil then
    local name = gate_prefix .. queue
    local flag = fair .. 'has:' .. list_prefix .. queue
    local gate, room, hold, has_flows = unpack(redis.call('MGET', name, name .. ':room', name .. ':hold', flag))
    gates[queue], rooms[queue], flows[queue] = gate, room and {}, has_flows
    for number in string.gmatch(room or '', '%S+') do table.insert(rooms[queue], tonumber(number)) end
    if hold then read_hold(queue, hold) end
  end
  if gates[queue] and tonumber(step) > (tonumber(gates[queue]) or -1) then return true end
  local hold = holds[queue]
  return hold and tonumber(step) > hold.lowest and (is_turn or not hold.probes)
end

-- Lets no more probe through until the next one is due; the hold lives no longer for that.
local function use_probe(queue, hold)
  hold.probes, hold.wait.opens_at = false, now + hold.every_s
  hold.opens_at = hold.wait.opens_at
  hold_opens_at = math.min(hold_opens_at or hold.opens_at, hold.opens_at)
  redis.call('SET', gate_prefix .. queue .. ':hold', cjson.encode(hold.wait), 'KEEPTTL')
end

-- Strikes a queue off that is stopped, where queues are known to wait; what is held comes back when it opens.
local function strike_off(queue, class)
  redis.call('ZREM', KEYS[WAITING + class], queue)
  local hold = holds[queue]
  if hold and hold.opens_at then redis.call('ZADD', openings, 'LT', hold.opens_at, queue) end
end

-- Counts what was taken against the room of its own and of less urgent priorities.
local function use_room(queue, step, count)
  local room = rooms[queue]
  if not room then return end
  for k = step + 1, #room - 1 do room[k] = room[k] - count end
  redis.call('SET', gate_prefix .. queue .. ':room', table.concat(room, ' '), 'KEEPTTL')
end

-- Looks whether there are suspects or revoked tasks: one command where there are neither, as nearly always.
local function look_for_marked()
  local some = redis.call('EXISTS', suspects, revoked) > 0
  has_suspects = some and redis.call('EXISTS', suspects) == 1
  has_revoked = some and redis.call('EXISTS', revoked) == 1
end

-- Returns the tag of the message that was taken last.
local function tag_of(message)
  if has_suspects == nil then look_for_marked() end
  if has_suspects and redis.call('HDEL', suspects, redis.sha1hex(message)) == 1 then return prefix .. taken .. mark end
  return prefix .. taken
end

-- True when a message's task has an end, said by Fleet or by a plain client of Celery, and it has passed. A task's own field
-- is looked at by who takes it (expiry.py). What is searched for begins with a rare letter: that is quicker.
local function is_over(message)
  local from = math.max(8, #message - HEADERS_BYTES)
  local at = string.find(message, '_expires"', from, true)
  local end_at = at and tonumber(string.match(message, '^"fleet_expires": ?([%d.]+)', at - 6))
  if not at then
    at = string.find(message, 'xpires": "', from, true)
    local text = at and string.match(message, '^"expires": "([^"]*)"', at - 2)
    end_at = text and iso_time({}, { text })
  end
  return end_at and end_at < tonumber(now) and #message <= most_bytes and string.find(message, bot_task, from, true)
end

-- Puts a message aside that is over: not even a mark of it may tell that it is in its list.
local function put_over(message)
  put_aside = put_aside + 1
  if message == GONE then return end
  local epoch = redis.call('LPUSH', over, message) == 1 and redis.call('HINCRBY', epochs, over, 1)
  local id = string.match(message, '^{"mark":"([^"]+)"')
  if not id then return end
  epoch = epoch or redis.call('HGET', epochs, over) or '0'
  redis.call('SET', mark_prefix .. id, 'q|' .. epoch .. '|' .. over, 'XX')
end

-- Files one message as taken; returns its tag, and what the unacked store has of it.
local function file(list, message)
  if #message > most_bytes then
    message = cut_mark .. #message .. ':' .. string.sub(message, 1, kept_bytes) .. string.sub(message, -kept_bytes)
  end
  taken = taken + 1
  local tag = tag_of(message)
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = tag, list, message
  local id = string.match(message, '^{"mark":"([^"]+)"')
  if id then redis.call('SET', mark_prefix .. id, 't|' .. tag, 'XX') end
  return tag, list .. '\n' .. message
end

-- Takes the next messages of a list: of its flows, where the queue has any. Before Redis 7 a count would walk the whole list.
-- None: nothing waits.
local function pop(queue, list, most)
  local weighted, first = flows[queue], list_prefix .. queue
  local messages = weighted and next_of_flows({ list, epochs, ends }, {
    most, weighted, first, separator, fair, priorities, mark_prefix, queue, has_quick_pops,
  })
  if messages then return messages end
  if has_quick_pops then return redis.call('RPOP', list, math.min(most, POPPED)) or {} end
  return { redis.call('RPOP', list) or nil }
end

local function list_of(queue, step)
  return list_prefix .. (step == '0' and queue or queue .. separator .. step)
end

-- Takes from one list until `most` are taken altogether, and strikes the queue off where it is known to wait.
local function take_from(queue, class, most, is_turn)
  local step = ARGV[REST + class]
  if is_shut[queue] then return end
  if is_stopped(queue, step, is_turn) then
    if queues == 0 and not (holds[queue] and holds[queue].probes) then strike_off(queue, class) end
    return
  end
  local hold = holds[queue]
  if hold and tonumber(step) <= hold.lowest then hold = nil end
  if hold then most = taken + 1 end  -- it is a probe
  local list = list_of(queue, step)
  local entries, renewals, before, is_empty = {}, {}, taken, false
  if rooms[queue] then most = math.min(most, taken + rooms[queue][step + 1]) end
  while taken < most do
    local messages = pop(queue, list, most - taken)
    if #messages == 0 then is_empty = true break end
    for _, message in ipairs(messages) do
      if message == GONE or is_over(message) then
        put_over(message)
      else
        local tag, entry = file(list, message)
        entries[#entries + 1], entries[#entries + 2] = tag, entry
        renewals[#renewals + 1], renewals[#renewals + 2] = now, tag
      end
    end
    if put_aside >= MOST_OVER then break end
  end
  if taken > before then
    redis.call('HSET', unacked, unpack(entries))
    redis.call('ZADD', index, unpack(renewals))
    use_room(queue, step, taken - before)
    if hold then use_probe(queue, hold) end
  end
  if is_empty and (taken > before or put_aside > 0 or queues == 0) then redis.call('ZREM', KEYS[WAITING + class], queue) end
end

-- True when one of several named queues has a message of a class: one command, where each look would be one.
local function has_any(class)
  local asked, step = {}, ARGV[REST + class]
  for i = 1, queues do
    local queue = ARGV[queues_at + i]
    asked[2 * i - 1], asked[2 * i] = list_of(queue, step), fair .. 'has:' .. list_prefix .. queue
  end
  return redis.call('EXISTS', unpack(asked)) > 0
end

local function serve_named(class, last, most, is_turn)
  if queues > 1 and not has_any(class) then return end
  local start = 0
  for i = 1, queues do
    if ARGV[queues_at + i] == last then start = i end
  end
  for i = 0, queues - 1 do
    if taken >= most then return end
    take_from(ARGV[queues_at + 1 + (start + i) % queues], class, most, is_turn)
  end
end

local function serve_waiting(class, from, to, most, is_turn)
  while taken < most do
    local waiting = redis.call('ZRANGEBYLEX', KEYS[WAITING + class], from, to, 'LIMIT', 0, CHUNK)
    for _, queue in ipairs(waiting) do
      if taken >= most then return end
      if redis.call('SISMEMBER', ours, queue) == 1 then take_from(queue, class, most, is_turn) end
    end
    if #waiting < CHUNK then return end
    from = '(' .. waiting[#waiting]
  end
end

local function serve(class, most, is_turn)
  local last = ARGV[served_at + class]
  if queues > 0 then return serve_named(class, last, most, is_turn) end
  serve_waiting(class, '(' .. last, '+', most, is_turn)
  serve_waiting(class, '-', '[' .. last, most, is_turn)
end

local opens_at = first_opening()
if opens_at and opens_at - now <= 0 then
  open_parked({ parked, openings, bell, epochs }, {
    now, MOST, order_prefix, waiting_prefix, separator, mark_prefix, priorities, fair, list_prefix,
  })
  opens_at = first_opening()
end

for class = priorities, 1, -1 do
  if taken >= guarded then break end
  serve(class, guarded, true)
end
for class = 1, priorities do
  if taken >= wanted then break end
  serve(class, wanted)
end

if taken > 0 then
  if has_revoked then reply[#reply + 1] = tags_of_revoked() end
  return reply
end
if put_aside > 0 then return {} end
if hold_opens_at then opens_at = math.min(opens_at or hold_opens_at, hold_opens_at) end
local left_ms = opens_at and math.max(0, math.ceil((opens_at - now) * 1000)) or -1
local newest = unpack(redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1))
return { newest and newest[1] or '0-0', left_ms }
