-- Enter one call whose process is gone as unknown, unless it is in the bill already.
--
-- KEYS     writer    string: number of the last batch of its process, a line break, its ids
--          unknown   hash: id of a call -> JSON of its unknown entry, or when that was resolved         TTL 400 days
--          hour      hash: rows of the hour of the call, see rows.lua                                   TTL 15 days
--          day       hash: rows of its day                                                              TTL 401 days
--          bots      hash: rows of its day by bot                                                       TTL 401 days
--          ever      hash: rows of all time                                                             TTL 401 days
-- ARGV     number    of the last batch of its process when the note of the call was read; 0: none
--          id        of the call
--          entry     JSON
--          rows      of the hash (1 hour, 2 day, 3 bots, 4 ever), name, packed; one row after the other
-- Reply    code
-- Codes    1 entered;  0 it was in the bill;  -1 its process has sent another batch since: it lives, look again
local last = call('GET', KEYS[WRITER]) or '0'
if match(last, '^%d+') ~= ARGV[NUMBER] then return -1 end
if string.find(last, ',' .. ARGV[ID] .. ',', 1, true) then return 0 end
if call('HSETNX', KEYS[UNKNOWN], ARGV[ID], ARGV[ENTRY]) == 0 then return 0 end
call('EXPIRE', KEYS[UNKNOWN], UNKNOWN_LIFE_S)
add_rows({ KEYS[HOUR], KEYS[DAY], KEYS[BOTS], KEYS[EVER] }, ARGV, ROWS + 1)
return 1
