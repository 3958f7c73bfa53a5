-- Enter one call whose process is gone, unless it is in the bill already.
--
-- KEYS     writer    string: see bill.lua                                                              TTL 8 days
--          unknown   hash: id of a call -> JSON of its unknown entry, or when that was resolved         TTL 400 days
--          hour      hash: rows of the hour of the call, see rows.lua                                   TTL 15 days
--          day       hash: rows of its day                                                              TTL 401 days
--          bots      hash: rows of its day by bot                                                       TTL 401 days
--          ever      hash: rows of all time                                                             TTL 401 days
-- ARGV     number    of the last batch of its process when the note of the call was read; 0: none
--          id        of the call
--          entry     JSON of its unknown entry; `-` and the Unix time: it was settled
--          rows      of the hash (1 hour, 2 day, 3 bots, 4 ever), name, packed; one row after the other
-- Reply    code
-- Codes    1 entered;  0 it was in the bill;  -1 its process has sent another batch since: it lives, look again
local find = string.find
local last = call('GET', KEYS[WRITER]) or '0'
if match(last, '^%d+') ~= ARGV[NUMBER] then return -1 end
if find(last, ',' .. ARGV[ID] .. ',', 1, true) then return 0 end
if call('HEXISTS', KEYS[UNKNOWN], ARGV[ID]) == 1 then return 0 end
if call('HLEN', KEYS[UNKNOWN]) < MOST_LISTED then
  call('HSET', KEYS[UNKNOWN], ARGV[ID], ARGV[ENTRY])
  call('EXPIRE', KEYS[UNKNOWN], UNKNOWN_LIFE_S)
else  -- it is only summed, so its writer remembers that
  if not find(last, '\n', 1, true) then last = last .. '\n,' end
  if not_listed_of(last) == '' then last = last .. '\n,' end
  call('SET', KEYS[WRITER], last .. ARGV[ID] .. ',', 'EX', WRITER_LIFE_S)
end
add_rows({ KEYS[HOUR], KEYS[DAY], KEYS[BOTS], KEYS[EVER] }, ARGV, ROWS + 1)
return 1
