-- Reads how the next messages of some lists end: there stand the headers, and before them the end of the body.
-- O(bytes of the messages).
--
-- KEYS  lists   the next message of each is the last
-- ARGV  most    of a message, the last ones (bytes)
--       enough  of whole messages: when so many have been read, the lists that are left are not (bytes)
-- Reply bytes read, then how each message ends, of the first list at least; '': there is none
local most, enough = tonumber(ARGV[MOST]), tonumber(ARGV[ENOUGH])
local reply, bytes = { 0 }, 0

for i = LISTS + 1, #KEYS do
  local message = redis.call('LINDEX', KEYS[i], -1) or ''
  bytes = bytes + #message
  reply[#reply + 1] = string.sub(message, -most)
  if bytes >= enough then break end
end
reply[1] = bytes
return reply
