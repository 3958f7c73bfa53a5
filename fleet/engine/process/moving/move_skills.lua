-- Move what is known of the bots of a pool in one class of tasks from where releases up to 0.2 kept it. O(bots).
--
-- What nobody has written anew is renamed; else both are added up. Repeatable, as move_series.lua.
--
-- KEYS  old_skills, skills             string: a packed row per bot, see skill.lua             TTL of all: life_s
--       old_specialists, specialists   sorted set: bot -> how much better it is
--       old_answers, answers           list: fingerprints of answers, the newest first
--       old_ration, ration             string: calls for second answers that were earned
-- ARGV  life_s                         life of the keys, s
-- Reply keys that were moved
local old_skills, skills, old_specialists, specialists, old_answers, answers, old_ration, ration = unpack(KEYS)
local moved = 0

-- True when both keys are there; else the new one is all there is.
local function are_both(old, new)
  local how = rename({ old, new }, { ARGV[LIFE_S] })
  if how > 0 then moved = moved + 1 end
  return how == 2
end

local function merge_skills()
  local raw, empty = redis.call('GET', old_skills), string.rep('\0', SKILL_BYTES)
  for at = 0, #raw - SKILL_BYTES, SKILL_BYTES do
    local packed = string.sub(raw, at + 1, at + SKILL_BYTES)
    if packed ~= empty then
      local there = redis.call('GETRANGE', skills, at, at + SKILL_BYTES - 1)
      local skill, old = { SKILL_ZEROS }, { struct.unpack(SKILL_FORMAT, packed) }
      if #there == SKILL_BYTES then skill = { struct.unpack(SKILL_FORMAT, there) } end
      for place = 1, SKILL_PLACES do skill[place] = skill[place] + old[place] end
      redis.call('SETRANGE', skills, at, struct.pack(SKILL_FORMAT, unpack(skill, 1, SKILL_PLACES)))
    end
  end
end

if are_both(old_skills, skills) then
  merge_skills()
  redis.call('DEL', old_skills)
end
if are_both(old_specialists, specialists) then
  redis.call('ZUNIONSTORE', specialists, 2, specialists, old_specialists, 'AGGREGATE', 'MAX')
  redis.call('EXPIRE', specialists, ARGV[LIFE_S])
  redis.call('DEL', old_specialists)
end
if are_both(old_answers, answers) then
  for _, packed in ipairs(redis.call('LRANGE', old_answers, 0, -1)) do redis.call('RPUSH', answers, packed) end
  redis.call('DEL', old_answers)
end
if are_both(old_ration, ration) then
  local sum = redis.call('GET', ration) + redis.call('GET', old_ration)
  redis.call('SET', ration, string.format('%.3f', sum), 'EX', ARGV[LIFE_S])
  redis.call('DEL', old_ration)
end
return moved
