-- Stores a shared document under its id, once.
--
-- KEYS  documents  hash: id -> JSON of what is known of it    no TTL, as the next
--       text       string: what it says
-- ARGV  id, facts (JSON), words (the text)
--       most       documents that may be stored (count)
--       most_bytes of all of them, as `"bytes": N` in their facts
-- Reply, a code: 1 stored;  0 it was;  -1 there are too many;  -2 they are too large together
local documents, text = unpack(KEYS)
local id, facts, words, most, most_bytes = unpack(ARGV)
local function bytes_of(told)
  return tonumber(string.match(told, '"bytes": (%d+)') or 0)
end

if redis.call('EXISTS', text) == 1 and redis.call('HEXISTS', documents, id) == 1 then return 0 end
local all = bytes_of(facts)
local known = redis.call('HVALS', documents)
if #known >= tonumber(most) then return -1 end
for _, told in ipairs(known) do
  all = all + bytes_of(told)
end
if all > tonumber(most_bytes) then return -2 end
redis.call('HSET', documents, id, facts)
redis.call('SET', text, words)
return 1
