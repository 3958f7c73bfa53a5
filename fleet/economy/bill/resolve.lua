-- Put what a call has really cost in the place of its unknown entry, once.
--
-- KEYS     unknown   hash: id of a call -> JSON of its unknown entry, or when that was resolved         TTL 400 days
--          hour      hash: rows of the hour of the call, see rows.lua                                   TTL 15 days
--          day       hash: rows of its day                                                              TTL 401 days
--          bots      hash: rows of its day by bot                                                       TTL 401 days
--          ever      hash: rows of all time                                                             TTL 401 days
-- ARGV     id        of the call
--          before    JSON of its unknown entry, as it was read
--          mark      what stands there from now on: `-` and the Unix time
--          rows      of the hash (1 hour, 2 day, 3 bots, 4 ever), name, packed difference; one row after the other
-- Reply    code
-- Codes    1 resolved;  0 it was before, or has another entry
if call('HGET', KEYS[UNKNOWN], ARGV[ID]) ~= ARGV[BEFORE] then return 0 end
call('HSET', KEYS[UNKNOWN], ARGV[ID], ARGV[MARK])
add_rows({ KEYS[HOUR], KEYS[DAY], KEYS[BOTS], KEYS[EVER] }, ARGV, ROWS + 1)
return 1
