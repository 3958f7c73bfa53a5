-- Ends reservations: what was reserved comes back, and what was spent is counted in the periods of now. Safe to repeat.
--
-- KEYS     reserved_by  hash: id -> JSON {process, seconds, micro-dollars, {scopes}}, see reserve.lua
--          lapsed       hash: id -> JSON {process, seconds, micro-dollars, {scopes}, picos beyond them}: what was
--                       charged for calls of which nobody knows the cost                              TTL LAPSED_S
--          spent        of each scope, see budget.lua
-- ARGV     count        of scopes
--          names        of the scopes, in the order of their keys; then of each reservation four: its id; what was spent
--                       in micro-dollars ('': what was reserved), and picos beyond them; 1 when nobody knows what it
--                       cost, and it may be told later
-- Reply    the number of reservations that were ended or corrected; then of each scope whose tasks wait for what those had
--          reserved three: its number among the names, of the period, and of its reservations that were ended
local ID, SPENT_MICROS, SPENT_PICOS, IS_UNKNOWN, OF_ONE = 1, 2, 3, 4, 4
local count = ARGV[COUNT] + 0
local states, changed, freed, ended = {}, {}, {}, 0

local function state_of(name) return states[name] and states[name].state end

for k = 1, count do
  local key = KEYS[SPENT + k]
  states[ARGV[NAMES + k]] = { key = key, state = read_state(key) }
end

-- Count what one reservation came to.
local function settle(id, micros, picos, is_unknown)
  local text = call('HGET', KEYS[RESERVED_BY], id)
  local lapsed = not text and call('HGET', KEYS[LAPSED], id)
  if not text and (not lapsed or is_unknown) then return end
  local process, lapsed_at, asked, names, rest = unpack(cjson.decode(text or lapsed))
  rest = rest or 0
  local spent = micros == '' and asked or micros + 0
  if micros == '' then picos = rest end
  for _, name in ipairs(names) do
    local state = state_of(name)
    if state then changed[name] = state end
    if state and text then
      state[RESERVED] = max(0, state[RESERVED] - asked)
      freed[name] = (freed[name] or 0) + 1
      add_spent(state, spent, picos, now)
    elseif state then
      add_spent(state, spent - asked, picos - rest, lapsed_at)
    end
  end
  for _, name in ipairs(ended == 0 and names or {}) do  -- a Redis without memory refuses this, before anything is gone
    if state_of(name) then write_state(states[name].key, states[name].state) end
  end
  call('HDEL', KEYS[RESERVED_BY], id)
  if text and is_unknown then
    call('HSET', KEYS[LAPSED], id, cjson.encode({ process, now, spent, names, picos }))
    call('EXPIRE', KEYS[LAPSED], LAPSED_S)
  else
    call('HDEL', KEYS[LAPSED], id)
  end
  ended = ended + 1
end

for at = NAMES + count, #ARGV - OF_ONE, OF_ONE do
  settle(ARGV[at + ID], ARGV[at + SPENT_MICROS], ARGV[at + SPENT_PICOS] + 0, ARGV[at + IS_UNKNOWN] == '1')
end
for name, state in pairs(changed) do write_state(states[name].key, state) end
local reply = { ended }
for k = 1, count do
  local name = ARGV[NAMES + k]
  local state, times = state_of(name), freed[name]
  if times and state[WAITED_UNTIL] > now then
    for _, number in ipairs({ k, state[WAITED_FOR], times }) do reply[#reply + 1] = number end
  end
end
return reply
