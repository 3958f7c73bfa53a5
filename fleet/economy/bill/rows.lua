-- What scripts of the bill begin with: how they add to rows. KEYS, ARGV and reply are each script's own.
--
-- Rows of an hour, of a day, of a day by bot and of all time: hashes, name -> packed row; places: `rows.py`. All its numbers are whole
-- numbers below 2^53; money is whole micro-dollars and, apart, the rest in 10^-12 dollars. What is taken back is negative.
-- A hash that is full gets no more rows: what is new is summed in its row `other`.
local PICOS_PER_MICRO = 1000000
local OTHER = 'other'
local call, floor, match = redis.call, math.floor, string.match

-- Return what stands behind the ids of the last batch of a writer, from its line break on: see bill.lua.
local function not_listed_of(last)
  local first = string.find(last, '\n', 1, true)
  local second = first and string.find(last, '\n', first + 1, true)
  return second and string.sub(last, second) or ''
end

-- Return a row with the numbers of another one added.
local function sum_of(packed, more)
  if not packed or #packed ~= ROW_BYTES then return more end
  local row, added = { struct.unpack(ROW_FORMAT, packed) }, { struct.unpack(ROW_FORMAT, more) }
  for place = 1, ROW_PLACES do row[place] = row[place] + added[place] end
  local whole = floor(row[USD_REST] / PICOS_PER_MICRO)
  row[USD_MICROS], row[USD_REST] = row[USD_MICROS] + whole, row[USD_REST] - whole * PICOS_PER_MICRO
  whole = floor(row[UNKNOWN_USD_REST] / PICOS_PER_MICRO)
  row[UNKNOWN_USD_MICROS] = row[UNKNOWN_USD_MICROS] + whole
  row[UNKNOWN_USD_REST] = row[UNKNOWN_USD_REST] - whole * PICOS_PER_MICRO
  return struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES))
end

-- Add to rows of one hash.
local function add_to(key, names, more, life_s)
  local rows, written, room, other = call('HMGET', key, unpack(names)), {}, nil, nil
  for k, name in ipairs(names) do
    if not rows[k] then room = (room or MOST_ROWS - call('HLEN', key)) - 1 end
    if not rows[k] and room < 0 then
      other = sum_of(other or call('HGET', key, OTHER), more[k])
    else
      written[#written + 1] = name
      written[#written + 1] = sum_of(rows[k], more[k])
    end
  end
  if other then
    written[#written + 1] = OTHER
    written[#written + 1] = other
  end
  call('HSET', key, unpack(written))
  if room then call('EXPIRE', key, life_s) end
end

-- Add all rows from place `first` on of a list: the number of the hash, the name of the row, the row packed.
local function add_rows(hashes, list, first)
  local names, more = { {}, {}, {}, {} }, { {}, {}, {}, {} }
  for k = first, #list, 3 do
    local hash = tonumber(list[k])
    table.insert(names[hash], list[k + 1])
    table.insert(more[hash], list[k + 2])
  end
  for hash, key in ipairs(hashes) do
    if #names[hash] > 0 then add_to(key, names[hash], more[hash], hash == 1 and HOUR_LIFE_S or DAY_LIFE_S) end
  end
end
