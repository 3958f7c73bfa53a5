-- Finishes a task that may earn something, and enters that, in one step. Behind `finish.lua` or `finish_member.lua`,
-- which is the function `finish` here: a fleet without payouts runs that alone.
--
-- KEYS  tasks, day, ever   see accrue.lua
--       finish_keys        those of what stands before it
-- ARGV  task, row, tasks_life_s, day_life_s   see accrue.lua
--       finish_argv        those of what stands before it
-- Reply as finish.lua
local KEYS, ARGV = KEYS, ARGV
local reply = finish({ unpack(KEYS, FINISH_KEYS + 1) }, { unpack(ARGV, FINISH_ARGV + 1) })
if string.sub(reply, 1, 1) == '1' then
  accrue(
    { KEYS[TASKS], KEYS[DAY], KEYS[EVER] }, { ARGV[TASK], ARGV[ROW], ARGV[TASKS_LIFE_S], ARGV[DAY_LIFE_S] })
end
return reply
