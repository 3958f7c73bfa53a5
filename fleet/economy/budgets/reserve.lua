-- Reserves what a call is taken to cost in every budget that counts it, all or nothing.
--
-- KEYS     live          hash: scope -> what was set while the fleet runs, as fleet.toml's amounts below
--          reserved_by   hash: id -> JSON {process, seconds, micro-dollars, {scopes}}       TTL LIFE_S
--          of_tenants    sorted set: scope -> used share of its fullest budget              TTL LIFE_S
--          of_bots       the same of bots
--          of_runs       and of runs
--          spent         of each scope, see budget.lua
-- ARGV     id            of the reservation; the same id again reserves once
--          process       that asks
--          micros_asked  what the call is taken to cost, in micro-dollars
--          priority      of its task
--          is_learnt     0: no call of its kind has been counted yet, so that is the most that it may cost
--          scopes        of each scope four: its name; the scope that stands for each of its kind ('': none); what
--                        fleet.toml allows it ("hour day month all mode", -1: not limited; '': nothing said), and each
-- Reply    packed: places of REPLY in `layouts.py`
-- Codes    1 reserved;  0 no room: the budget that opens last;  2 no budget counts it
local NAME, EACH, OWN, OWN_EACH, OF_ONE = 1, 2, 3, 4, 4
local NEWEST = 0.05
local SHARES = { tenant = KEYS[OF_TENANTS], bot = KEYS[OF_BOTS], run = KEYS[OF_RUNS] }
-- What was told of a budget is kept as its percentage and, times this, the amount of which it was that much (mod 2^40).
local TOLD_UNIT, TOLD_MOST = 128, 2 ^ 40
local id, process, ask, priority = ARGV[ID], ARGV[PROCESS], ARGV[MICROS_ASKED] + 0, ARGV[PRIORITY] + 0
local is_learnt = ARGV[IS_LEARNT] == '1'

local function terms_of(text)
  local terms, is_limited = {}, false
  for number in string.gmatch(text, '%S+') do terms[#terms + 1] = tonumber(number) end
  for p = 1, PERIODS do is_limited = is_limited or (terms[ALLOWED + p] or -1) >= 0 end
  return is_limited and #terms == TERMS_PLACES and terms or nil
end

-- The scopes that have a budget: what is set for one by name goes before what is set for each, and live before file.
-- A run that has none is not shown among those that are the fullest.
local function budgets()
  local names, found = {}, {}
  for k = 0, (#ARGV - SCOPES) / OF_ONE - 1 do
    local at = SCOPES + k * OF_ONE
    names[#names + 1], names[#names + 2] = ARGV[at + NAME], ARGV[at + EACH]
  end
  local set = call('HMGET', KEYS[LIVE], unpack(names))
  for k = 0, #names / 2 - 1 do
    local at = SCOPES + k * OF_ONE
    local own, each = ARGV[at + OWN], ARGV[at + OWN_EACH]
    local live, live_each = set[2 * k + 1], ARGV[at + EACH] ~= '' and set[2 * k + 2]
    local terms = terms_of(live or own ~= '' and own or live_each or each)
    if terms then
      local key = KEYS[SPENT + k + 1]
      found[#found + 1] = { number = k + 1, name = ARGV[at + NAME], key = key, terms = terms, state = read_state(key),
        is_one_of_many = ARGV[at + EACH] ~= '' and (live or ARGV[at + EACH] ~= 'run:*') }
    end
  end
  return found
end

-- True of a tenant or a run: its tasks wait by themselves, and the others of their pool go on.
local function waits_alone(one)
  local kind = string.match(one.name, '^%a+')
  return kind == 'tenant' or kind == 'run'
end

-- Why a period of a scope has no room; nothing: it has. What is only reserved comes back as calls in flight are answered,
-- and each answer changes what the next call is taken to cost: a pool closes until a period ends when all have come. A
-- tenant's or run's tasks wait for that end at once, and some ask again as calls end.
-- A call that is dearer than what is left, while the usual one fits, waits for itself. Where the most that a call may cost
-- is more than all that is allowed, and nothing is learnt, calls go one at a time: else none would ever be counted.
local function refusal(one, p)
  local state, terms = one.state, one.terms
  local allowed = terms[ALLOWED + p]
  if allowed < 0 then return nil end
  local is_bulk = terms[MODE] == STOPS_BULK and priority > LOWEST_ON_RESERVE
  local most = is_bulk and floor(allowed * FULL_SHARE) or allowed
  local used = state[MICROS + p] + (state[REST + p] > 0 and 1 or 0)
  if used + state[RESERVED] + ask <= most then return nil end
  local is_trial = not is_learnt and ask > most and used < most
  if is_trial and state[RESERVED] == 0 then return nil end
  local is_learning, is_alone = used < most and state[RESERVED] > 0, waits_alone(one)
  local returns = (is_trial or used + ask <= most or is_learning and not is_alone) and 1 or 0
  local left, mean = most - used - state[RESERVED], state[MEAN]
  local is_own = (ask > allowed or mean > 0 and mean < ask and left >= mean) and 1 or 0
  return { one = one, period = p, opens = returns == 1 and now + RETURNS_S or ends[p], is_own = is_own,
    returns = returns, is_woken = is_alone and (returns == 1 or is_learning),
    lowest = is_bulk and LOWEST_ON_RESERVE or -1, used = used, allowed = allowed }
end

-- True when one opens later than the other: what has no end is last of all.
local function is_later(one, other)
  if one.opens == 0 or other.opens == 0 then return one.opens == 0 and other.opens ~= 0 end
  return one.opens > other.opens
end

local function percent_of(used, allowed)
  return used >= allowed and 100 or used >= allowed * FULL_SHARE and 80 or 0
end

-- Keep in mind what was told of a period of a scope.
local function note_told(one, p, percent)
  one.state[TOLD + p] = one.terms[ALLOWED + p] % TOLD_MOST * TOLD_UNIT + percent
  one.is_changed = true
end

-- The percentage that was told of a period; where it was of another amount, no more than is used of the present one.
local function told_of(one, p)
  local allowed, noted = one.terms[ALLOWED + p], one.state[TOLD + p]
  local percent = noted % TOLD_UNIT
  if noted == 0 or noted == allowed % TOLD_MOST * TOLD_UNIT + percent then return percent end
  percent = math.min(percent, percent_of(one.state[MICROS + p], allowed))
  note_told(one, p, percent)
  return percent
end

-- The use that has just reached a percentage, once each: scope, period and percentage. A refusal of the most that a call
-- may cost tells nothing: a process that has heard what such calls do cost may ask at once and go.
local function reached(found, refused)
  for _, one in ipairs(found) do
    for p = 1, PERIODS do
      local allowed = one.terms[ALLOWED + p]
      if allowed >= 0 then
        local is_refused = refused and refused.one == one and refused.period == p and refused.lowest < 0
        local is_full = is_refused and is_learnt and refused.is_own + refused.returns == 0
        local percent = is_full and 100 or percent_of(one.state[MICROS + p], allowed)
        if percent > told_of(one, p) then
          note_told(one, p, percent)
          return one.number, p, percent
        end
      end
    end
  end
  return 0, 0, 0
end

-- Keep in mind that a tenant's or run's task waits for what calls in flight have reserved: their ends let it know.
local function note_waiting(why)
  local state = why.one.state
  if not why.is_woken then return end
  if state[WAITED_FOR] == why.period and state[WAITED_UNTIL] > now + WAITED_S - STAND_STEP_S then return end
  state[WAITED_UNTIL], state[WAITED_FOR], why.one.is_changed = now + WAITED_S, why.period, true
end

local function answer(code, found, why)
  local told_scope, told_period, told_percent = reached(found, why)
  for _, one in ipairs(found) do
    if one.is_changed then write_state(one.key, one.state) end
  end
  local none = { one = { number = 0, terms = {}, state = {} }, period = 0, opens = 0, is_own = 0, returns = 0,
    lowest = -1, used = 0, allowed = 0 }
  why = why or none
  local scope, period, opens_s, is_own, returns, lowest = why.one.number, why.period, why.opens, why.is_own, why.returns,
    why.lowest
  local mode, used, reserved, allowed = why.one.terms[MODE] or 0, why.used, why.one.state[RESERVED] or 0, why.allowed
  return struct.pack(REPLY_FORMAT, code, scope, period, opens_s, is_own, returns, lowest, mode, used, reserved, allowed,
    told_scope, told_period, told_percent)
end

-- Keep in mind how full a scope is that is one of many of its kind: those are shown by that.
local function rank(one)
  local share = 0
  for p = 1, PERIODS do
    local allowed = one.terms[ALLOWED + p]
    if allowed >= 0 then share = max(share, (one.state[MICROS + p] + one.state[RESERVED]) / allowed) end
  end
  local shares = SHARES[string.match(one.name, '^%a+')]
  call('ZADD', shares, share, one.name)
  call('EXPIRE', shares, LIFE_S)
end

local found, why = budgets(), nil
if #found == 0 then return answer(NONE, found) end
if call('HEXISTS', KEYS[RESERVED_BY], id) == 1 then return answer(RESERVED_CODE, found) end
for _, one in ipairs(found) do
  for p = 1, PERIODS do
    local other = refusal(one, p)
    if other and (not why or is_later(other, why)) then why = other end
  end
end
local names = {}
for k, one in ipairs(found) do
  names[k] = one.name
  if one.is_one_of_many then rank(one) end
end
if why then
  note_waiting(why)
  return answer(FULL, found, why)
end
for _, one in ipairs(found) do
  local state = one.state
  state[RESERVED] = state[RESERVED] + ask
  state[MEAN] = state[MEAN] > 0 and state[MEAN] + (ask - state[MEAN]) * NEWEST or ask
  one.is_changed = true
end
call('HSET', KEYS[RESERVED_BY], id, cjson.encode({ process, now, ask, names }))
call('EXPIRE', KEYS[RESERVED_BY], LIFE_S)
return answer(RESERVED_CODE, found)
