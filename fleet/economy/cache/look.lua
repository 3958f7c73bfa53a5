-- Tells the kept answer to what a task asks. Where none is kept, one task of the fleet is let go, and the others wait.
--
-- An answer that has outlived its time, or whose bot is quarantined now, goes.
--
-- KEYS  answers   hash: digest -> bot, a line break, result     TTL of this, ends and bytes: as long as anything is kept
--       ends      sorted set: digest -> Redis time, s
--       bytes     string: those of all answers
--       out       sorted set: bot -> end of its quarantine, us of Redis time
--       asking    string: how, its priority, the task that is asked    TTL: its lease. `now`; `later`: in a batch, say;
--                 `each`: no answer to this is kept, so each task is asked
--       twins     sorted set: task that waits -> when it looks again, s    TTL: as long as any waits
-- ARGV  digest
--       task      who looks
--       priority  of it: none waits for a less urgent one, but goes in its place
--       lease_s   so long nobody else is let go, unless it is told again
--       apart_s   between two that look again: no herd
--       latest    until when it can wait, Redis time, s
--       latest_later  the same for what is asked later
-- Reply {code, text, s}
-- Codes 2 `text` is kept;  1 it is asked for all;  0 it is asked for itself;  -1 the task `text` is asked: look again at `s`
local answers, ends, bytes, out, asking, twins = unpack(KEYS)
local digest, task, priority, lease_s, apart_s, latest, latest_later = unpack(ARGV)
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds + microseconds / 1000000

local function kept()
  local answer = redis.call('HGET', answers, digest)
  if not answer then return end
  local is_over = (tonumber(redis.call('ZSCORE', ends, digest)) or 0) <= now
  local out_until = redis.call('ZSCORE', out, string.match(answer, '^[^\n]*'))
  if not is_over and (tonumber(out_until) or 0) <= now * 1000000 then return answer end
  redis.call('HDEL', answers, digest)
  redis.call('ZREM', ends, digest)
  redis.call('DECRBY', bytes, #answer)
end

-- When a task looks again that waits for another one; nothing: it cannot wait for that.
local function looks_at(how)
  local over_at = now + redis.call('PTTL', asking) / 1000
  if how == 'later' then return over_at <= tonumber(latest_later) and over_at or nil end
  local _, last = unpack(redis.call('ZREVRANGE', twins, 0, 0, 'WITHSCORES'))
  local at = math.max(over_at, last and last + apart_s or 0)
  return at <= tonumber(latest) and at or nil
end

local answer = kept()
if answer then return { 2, answer, '' } end
redis.call('ZREM', twins, task)
local how, urgency, who = string.match(redis.call('GET', asking) or '', '^(%l+) (%d+) (.*)$')
if how == 'each' then return { 0, '', '' } end
if who and who ~= task and tonumber(priority) >= tonumber(urgency) then
  local at = looks_at(how)
  if at then
    redis.call('ZADD', twins, at, task)
    redis.call('EXPIRE', twins, math.ceil(at - now) + lease_s)
    return { -1, who, string.format('%.3f', at) }
  end
  if how == 'now' then return { 0, '', '' } end
end
redis.call('SET', asking, 'now ' .. priority .. ' ' .. task, 'EX', lease_s)
return { 1, '', '' }
