-- Enter a batch of calls into the bill, once: it may be sent again and again until it is answered.
--
-- KEYS     writer    string, lines: number of the last batch of the process; its ids between commas; if there are any,
--                    ids of calls that were taken for lost and are not listed in `unknown`            TTL 8 days
--          unknown   hash: id of a call -> JSON of its unknown entry, or when that was resolved         TTL 400 days
--          hour      hash: rows of the hour of all these calls, see rows.lua                            TTL 15 days
--          day       hash: rows of its day                                                              TTL 401 days
--          bots      hash: rows of its day by bot                                                       TTL 401 days
--          ever      hash: rows of all time                                                             TTL 401 days
-- ARGV     number    of the batch: each of a process has one more than the one before
--          ids       of its calls: each between commas
--          lost      those of which nobody knows the cost, to be kept one by one: lines of an id, a blank, JSON
--          rows      of the hash (1 hour, 2 day, 3 bots, 4 ever), name, packed; one row after the other
-- Reply    empty: it is entered, now or before; else nothing was done, and these must be resolved first: id, what
--          `unknown` has of it, one after the other; '': it is summed as unknown for good
local last = call('GET', KEYS[WRITER]) or '0'
if tonumber(match(last, '^%d+')) >= tonumber(ARGV[NUMBER]) then return {} end
local not_listed = not_listed_of(last)
local ids, taken_for_lost = {}, {}
for id in string.gmatch(ARGV[IDS], '[^,]+') do ids[#ids + 1] = id end
for k, entry in ipairs(#ids > 0 and call('HMGET', KEYS[UNKNOWN], unpack(ids)) or {}) do
  if entry or not_listed ~= '' and string.find(not_listed, ',' .. ids[k] .. ',', 1, true) then
    table.insert(taken_for_lost, ids[k])
    table.insert(taken_for_lost, entry or '')
  end
end
if #taken_for_lost > 0 then return taken_for_lost end
add_rows({ KEYS[HOUR], KEYS[DAY], KEYS[BOTS], KEYS[EVER] }, ARGV, ROWS + 1)
if ARGV[LOST] ~= '' then
  local room = MOST_LISTED - call('HLEN', KEYS[UNKNOWN])
  for id, entry in string.gmatch(ARGV[LOST], '(%S+) ([^\n]+)') do
    if room > 0 then call('HSET', KEYS[UNKNOWN], id, entry) end
    room = room - 1
  end
  call('EXPIRE', KEYS[UNKNOWN], UNKNOWN_LIFE_S)
end
call('EXPIRE', KEYS[EVER], DAY_LIFE_S)
call('SET', KEYS[WRITER], ARGV[NUMBER] .. '\n' .. ARGV[IDS] .. not_listed, 'EX', WRITER_LIFE_S)
return {}
