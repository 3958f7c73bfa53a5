-- Move the grades of a pool's bots in one class from where releases up to 0.2 kept them. O(bots).
--
-- What nobody has written anew is renamed; else grades are added up, and of what speaks against a bot the heavier
-- stands. Repeatable, as move_series.lua.
--
-- KEYS  old_grades, grades   string: what is usual, then a packed row per bot, see grade.lua  TTL of both: life_s
-- ARGV  life_s               life of the keys, s
-- Reply keys that were moved
local old_grades, grades = unpack(KEYS)

local function moved(old, new) return rename({ old, new }, { ARGV[LIFE_S] }) end

local function merge_usual(raw)
  local there, packed = redis.call('GETRANGE', grades, 0, USUAL_BYTES - 1), string.sub(raw, 1, USUAL_BYTES)
  if #packed < USUAL_BYTES or #there < USUAL_BYTES then return end
  local usual, old = { struct.unpack(USUAL_FORMAT, there) }, { struct.unpack(USUAL_FORMAT, packed) }
  for place = 1, USUAL_PLACES do usual[place] = usual[place] + old[place] end
  redis.call('SETRANGE', grades, 0, struct.pack(USUAL_FORMAT, unpack(usual, 1, USUAL_PLACES)))
end

local function merge_row(at, old)
  local there = redis.call('GETRANGE', grades, at, at + ROW_BYTES - 1)
  local row = #there == ROW_BYTES and { struct.unpack(ROW_FORMAT, there) } or { ROW_ZEROS }
  row[RIGHTS], row[WRONGS] = row[RIGHTS] + old[RIGHTS], row[WRONGS] + old[WRONGS]
  if old[WRONG] > row[WRONG] then
    row[SINCE], row[WRONG], row[SUSPECTED] = old[SINCE], old[WRONG], old[SUSPECTED]
  end
  redis.call('SETRANGE', grades, at, struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)))
end

local how = moved(old_grades, grades)
if how == 2 then
  local raw, empty = redis.call('GET', old_grades), string.rep('\0', ROW_BYTES)
  merge_usual(raw)
  for at = HEAD_BYTES, #raw - ROW_BYTES, ROW_BYTES do
    local packed = string.sub(raw, at + 1, at + ROW_BYTES)
    if packed ~= empty then merge_row(at, { struct.unpack(ROW_FORMAT, packed) }) end
  end
  redis.call('DEL', old_grades)
end
return math.min(how, 1)
