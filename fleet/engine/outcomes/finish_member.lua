-- Finishes a task that is a member of a job, and counts it there, in one step. Behind `finish.lua`, which is the function
-- `finish` here: tasks of no job run that alone.
--
-- KEYS  job, members, order, due, follower, live   see end_member.lua
--       finish_keys   those of finish.lua
-- ARGV  job_id, position, ended_as, life_s   see end_member.lua
--       finish_argv   those of finish.lua
-- Reply as finish.lua
local KEYS, ARGV = KEYS, ARGV
local reply = finish({ unpack(KEYS, FINISH_KEYS + 1) }, { unpack(ARGV, FINISH_ARGV + 1) })
if string.sub(reply, 1, 1) == '1' then
  end_member(
    { KEYS[JOB], KEYS[MEMBERS], KEYS[ORDER], KEYS[DUE], KEYS[FOLLOWER], KEYS[LIVE] },
    { ARGV[JOB_ID], ARGV[POSITION], ARGV[ENDED_AS], ARGV[LIFE_S] })
end
return reply
