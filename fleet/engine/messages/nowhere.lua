-- Tells which of some tasks with marks are nowhere: in no queue, not parked, with no worker. O(marks), reads only.
--
-- KEYS  epochs, unacked, parked   see orphan_mark.lua
-- ARGV  marks   keys of their marks
-- Reply the number of each that is nowhere, from 0, in order; whether one has a result is not looked at
--
-- The marks are named by whoever asks, not declared: the broker is one Redis, never a cluster.
local epochs, unacked, parked = unpack(KEYS)
local found = {}
for i = MARKS + 1, #ARGV do
  local mark, result = ARGV[i], ''
  if orphan_mark({ mark, epochs, unacked, parked }, { result }) == 1 then found[#found + 1] = i - MARKS - 1 end
end
return found
