-- Gives a row of the bill another name; where that has a row already, both are added. Sums stay as they are.
--
-- KEYS     rows     hash: rows of an hour or a day, see rows.lua                        TTL: as it has
-- ARGV     before   name of the row
--          after    its name from now on
-- Reply    1 renamed;  0 there is no such row
local row = call('HGET', KEYS[ROWS], ARGV[BEFORE])
if not row then return 0 end
local there = call('HGET', KEYS[ROWS], ARGV[AFTER])
call('HSET', KEYS[ROWS], ARGV[AFTER], there and sum_of(there, row) or row)
call('HDEL', KEYS[ROWS], ARGV[BEFORE])
return 1
