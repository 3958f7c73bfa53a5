-- Tells how much is parked beside each queue, and of a few of them, spread over the opening times, why.
-- O(queues + samples x log parked), reads only.
--
-- KEYS  parked   hash: task id -> list key, newline, reason, newline, message
--       orders   sorted sets of queues: task id -> opening time
-- ARGV  samples  entries looked at beside each queue (count)
-- Reply for each queue: {count, opening time of the first as text ('': none), reasons...}
--
-- Entries are looked at by rank, so that 100,000 of them cost what a few do. One that is larger than most is passed over,
-- unless it is the first: it would be copied for a word.
local LARGE = 65536
local parked, samples, reply = KEYS[PARKED], tonumber(ARGV[SAMPLES]), {}
for i = ORDERS + 1, #KEYS do
  local order = KEYS[i]
  local count = redis.call('ZCARD', order)
  local first = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')
  local row, looks = { count, first[2] or '' }, math.min(count, samples)
  for look = 0, looks - 1 do
    local rank = math.floor((look + math.random()) * count / looks)
    local id = redis.call('ZRANGE', order, rank, rank)[1]
    local is_read = look == 0 or redis.call('HSTRLEN', parked, id) <= LARGE
    local entry = is_read and redis.call('HGET', parked, id)
    row[#row + 1] = entry and string.match(entry, '^[^\n]*\n([^\n]*)\n') or nil
  end
  reply[#reply + 1] = row
end
return reply
