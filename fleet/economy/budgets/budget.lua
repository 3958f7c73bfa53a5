-- What the scripts of budgets begin with; KEYS, ARGV and reply are each script's own. Places of `state` and `terms`:
-- `layouts.py`; numbers in capitals that are not set here come from there too.
--
-- What a scope has spent: a string of packed doubles, TTL LIFE_S beyond its last call; one of another length, as another
-- version of this file wrote it, counts as none. Periods begin and end by the clock of Redis, in UTC.
local HOUR_S, DAY_S, EPOCH_DAYS, ERA_DAYS, YEAR_DAYS = 3600, 86400, 719468, 146097, 365
local MONTH, MOST_DAYS = 153, 31
local floor, max, format = math.floor, math.max, string.format
local call = redis.call

-- Return the day (since 1970) on which the month of a day begins: Hinnant's civil_from_days, by years from March on.
local function month_start(day)
  local of_era = (day + EPOCH_DAYS) % ERA_DAYS
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / YEAR_DAYS)
  local of_year = of_era - (YEAR_DAYS * year + floor(year / 4) - floor(year / 100))
  return day - of_year + floor((MONTH * floor((5 * of_year + 2) / MONTH) + 2) / 5)
end

-- Return when the hour, the day and the month of a time began, and when they end; the fourth period does not end: 0.
local function periods_at(at)
  local hour, day = floor(at / HOUR_S), floor(at / DAY_S)
  local month = month_start(day)
  return { hour * HOUR_S, day * DAY_S, month * DAY_S, 0 },
    { (hour + 1) * HOUR_S, (day + 1) * DAY_S, month_start(month + MOST_DAYS) * DAY_S, 0 }
end

local now = call('TIME')[1] + 0
local starts, ends = periods_at(now)

-- Read what a scope has spent. What belongs to a period that is over is gone; a clock that was set back ends none.
local function read_state(key)
  local packed = call('GET', key)
  local state = packed and #packed == STATE_BYTES and { struct.unpack(STATE_FORMAT, packed) } or { STATE_ZEROS }
  state[STATE_PLACES + 1] = nil  -- the place after the last number
  if state[START + PERIODS] == 0 then state[START + PERIODS] = now end  -- of what is counted in all
  for p = 1, PERIODS do
    if starts[p] > state[START + p] then
      state[START + p], state[MICROS + p], state[REST + p], state[TOLD + p] = starts[p], 0, 0, 0
    end
  end
  return state
end

local function write_state(key, state)
  call('SET', key, struct.pack(STATE_FORMAT, unpack(state, 1, STATE_PLACES)), 'EX', LIFE_S)
end

-- Add to what is spent in each period that had begun by `since`; what takes away (below 0) takes no more than there is.
local function add_spent(state, micros, picos, since)
  for p = 1, PERIODS do
    if state[START + p] <= since then
      local rest = state[REST + p] + picos
      local carried = floor(rest / PICOS_PER_MICRO)
      local whole = state[MICROS + p] + micros + carried
      state[MICROS + p], state[REST + p] = max(0, whole), whole < 0 and 0 or rest - carried * PICOS_PER_MICRO
    end
  end
end
