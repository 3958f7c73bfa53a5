-- May a call go? Of an open breaker one goes when its time has come, and one more as often as its cadence says, over the
-- whole fleet and whatever becomes of those before: one whose process died holds nobody up.
--
-- KEYS     breaker       see breaker.lua
-- ARGV     fingerprint   of the caller's settings and key
--          wants         1: a call wants to go;  0: only to know;  -1: a probe comes back that tells nothing;  2: a process
--                        that has heard nothing for longer than usual asks whether others have, or a call may try
--          silent_us     for how long it has heard nothing
--          left_us       how long ago its last call left, which was a try
-- Probes that have not ended, and may hang, are followed by others ever more slowly: each of them keeps a slot.
-- Reply    see breaker.lua; `go_at` is said here only
-- Codes    0 closed;  1 open;  2 open, and this call is the probe;  3 closed just now: go at `go_at`;  4 it may try;  5 it
--          may ask again at `opens_at`
-- A breaker that opened less than this before its probe's time is given one all the same: clocks differ a little.
local SLACK_US = 50000
local state, texts = read(KEYS[BREAKER])
local said = { turned = is_of_others(state, texts, ARGV[FINGERPRINT]) and WAS_CLOSED or nil }
local wants = tonumber(ARGV[WANTS])
if state[OPENED_AT] > 0 then
  if wants < 0 then
    -- Whatever became of it, probes keep their distance.
    state[OPENS_AT] = min(state[OPENS_AT], max(now, state[OPENS_AT] - state[EVERY_US] + PROBE_US))
    state[RAMPED] = max(0, state[RAMPED] - 1)
  elseif wants > 0 and now >= state[OPENS_AT] - SLACK_US then
    state[RAMPED], said.code = state[RAMPED] + 1, PROBE
    local slower = PROBE_SLOWER ^ max(0, state[RAMPED] - PROBES_AT_PACE)
    state[OPENS_AT] = now + (state[EVERY_US] > PROBE_US and state[EVERY_US] or min(PROBE_US * slower, SLOWEST_PROBE_US))
  end
elseif wants == 2 then
  -- Who doubts goes as probes go, over the whole fleet: what a single process suspects opens no breaker.
  if now - max(state[WELL_AT], state[CLOSED_AT]) >= tonumber(ARGV[SILENT_US]) then
    state[OPENS_AT] = max(state[OPENS_AT], now - tonumber(ARGV[LEFT_US]) + PROBE_US)
    said.code = now >= state[OPENS_AT] and TRIES or UNHEARD
    if said.code == TRIES then state[OPENS_AT] = now + PROBE_US end
  end
elseif wants > 0 and now - state[CLOSED_AT] < RAMP_US then
  -- The pace doubles: of 2^n calls that ask at once, the last one goes n doublings after the closing.
  state[RAMPED] = state[RAMPED] + 1
  said.code, said.go_at = RAMPING, state[CLOSED_AT] + DOUBLING_US * math.log(state[RAMPED]) / math.log(2)
end
local replied = reply(state, texts, said)
write(KEYS[BREAKER], state, texts)
return replied
