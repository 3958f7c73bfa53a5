-- Acknowledges finished messages, then moves waiting ones from the queues into the unacked store, in one atomic step.
-- There is no moment at which a message is neither in its queue nor in the unacked store.
--
-- KEYS  unacked      hash: tag -> list key, newline, message as published
--       index        sorted set: tag -> time of the last lease renewal (Redis time, s)
--       bell         stream: one entry per publish, capped at one; its last id tells a sleeping worker what it has seen
--       suspects     hash: SHA-1 of a message that waits and is suspect -> whose death made it so (restore.lua)   TTL kept
--       ours         set: names of the queues to take from; read only when ARGV names none (look.lua writes it)
--       waiting      sorted sets, one per priority, the most urgent first: names of queues that may have messages of it
-- ARGV  wanted       most messages to take (count)
--       guarded      how many of them from the least urgent class that waits (count)
--       prefix       of the tags to hand out
--       gate_prefix  of the gates' keys
--       separator    kombu's, in list keys
--       list_prefix  before queues, in list keys
--       mark         how the tag of a message ends that is suspect: from here on the tag alone tells
--       acks         number of tags to acknowledge
--       rest         priority steps, one per priority; as many queues that were served last ('': none); the tags to
--                    acknowledge; names of the queues to take from (none: those of `ours`)
-- Reply {tag, list key, message, tag, list key, message, ...}, or {bell id} when nothing waits, {} for acks alone
--
-- Lists and gates are named by queue, not declared: the broker is one Redis, never a cluster. A gate is a string, the
-- lowest priority that may be taken (-1, or no number: none); absent: open. Beside it, under the gate's name and ":room":
-- "n0 n1 n2 n3 n4 given", how many more tasks of each priority may be taken, each counting those of more urgent ones
-- (absent: any number), and what n4 was at first. Queues of one priority take turns: the next one after the one served
-- last. With queues in ARGV, O(queues); else O(queues that wait and are not open to us or to all).
--
-- Both unacked keys live as long as they have entries: a TTL here would be a way to lose tasks.
-- Waiting queues looked at in one go.
local CHUNK = 16
local unacked, index, bell, suspects, ours = unpack(KEYS)
local wanted, guarded, prefix, gate_prefix, separator, list_prefix, mark, acks = unpack(ARGV)
wanted, guarded = tonumber(wanted), tonumber(guarded)
local priorities = #KEYS - WAITING
local served_at = REST + priorities
local acks_at = served_at + priorities
local queues_at = acks_at + acks
local queues = #ARGV - queues_at

for i = acks_at + 1, queues_at do
  redis.call('HDEL', unacked, ARGV[i])
  redis.call('ZREM', index, ARGV[i])
end
if wanted <= 0 then return {} end

local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds .. '.' .. string.format('%06d', microseconds)
local gates, rooms, reply, taken = {}, {}, {}, 0
local has_suspects

local function is_stopped(queue, step)
  if gates[queue] == nil then
    local gate, room = unpack(redis.call('MGET', gate_prefix .. queue, gate_prefix .. queue .. ':room'))
    gates[queue], rooms[queue] = gate, room and {}
    for number in string.gmatch(room or '', '%S+') do table.insert(rooms[queue], tonumber(number)) end
  end
  return gates[queue] and tonumber(step) > (tonumber(gates[queue]) or -1)
end

-- Counts what was taken against the room of its own and of less urgent priorities.
local function use_room(queue, step, count)
  local room = rooms[queue]
  if not room then return end
  for k = step + 1, #room - 1 do room[k] = room[k] - count end
  redis.call('SET', gate_prefix .. queue .. ':room', table.concat(room, ' '), 'KEEPTTL')
end

-- Returns the tag of the message that was taken last.
local function tag_of(message)
  if has_suspects == nil then has_suspects = redis.call('EXISTS', suspects) == 1 end
  if has_suspects and redis.call('HDEL', suspects, redis.sha1hex(message)) == 1 then return prefix .. taken .. mark end
  return prefix .. taken
end

-- Takes from one list until `most` are taken altogether, and strikes the queue off where it is known to wait.
local function take_from(queue, class, most)
  local step = ARGV[REST + class]
  if is_stopped(queue, step) then return end
  local list = list_prefix .. (step == '0' and queue or queue .. separator .. step)
  local entries, renewals, before, is_empty = {}, {}, taken, false
  if rooms[queue] then most = math.min(most, taken + rooms[queue][step + 1]) end
  while taken < most do
    local message = redis.call('RPOP', list)  -- one by one: RPOP with a count walks the whole list (Redis 6.2)
    if not message then is_empty = true break end
    taken = taken + 1
    local tag = tag_of(message)
    entries[#entries + 1], entries[#entries + 2] = tag, list .. '\n' .. message
    renewals[#renewals + 1], renewals[#renewals + 2] = now, tag
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = tag, list, message
  end
  if taken > before then
    redis.call('HSET', unacked, unpack(entries))
    redis.call('ZADD', index, unpack(renewals))
    use_room(queue, step, taken - before)
  end
  if is_empty and (taken > before or queues == 0) then redis.call('ZREM', KEYS[WAITING + class], queue) end
end

local function serve_named(class, last, most)
  local start = 0
  for i = 1, queues do
    if ARGV[queues_at + i] == last then start = i end
  end
  for i = 0, queues - 1 do
    if taken >= most then return end
    take_from(ARGV[queues_at + 1 + (start + i) % queues], class, most)
  end
end

local function serve_waiting(class, from, to, most)
  while taken < most do
    local waiting = redis.call('ZRANGEBYLEX', KEYS[WAITING + class], from, to, 'LIMIT', 0, CHUNK)
    for _, queue in ipairs(waiting) do
      if taken >= most then return end
      if redis.call('SISMEMBER', ours, queue) == 1 then take_from(queue, class, most) end
    end
    if #waiting < CHUNK then return end
    from = '(' .. waiting[#waiting]
  end
end

local function serve(class, most)
  local last = ARGV[served_at + class]
  if queues > 0 then return serve_named(class, last, most) end
  serve_waiting(class, '(' .. last, '+', most)
  serve_waiting(class, '-', '[' .. last, most)
end

for class = priorities, 1, -1 do
  if taken >= guarded then break end
  serve(class, guarded)
end
for class = 1, priorities do
  if taken >= wanted then break end
  serve(class, wanted)
end

if taken > 0 then return reply end
local newest = unpack(redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1))
return { newest and newest[1] or '0-0' }
