-- Read how a breaker stands; changes nothing.
--
-- KEYS     breaker   see breaker.lua
-- ARGV     none
-- Reply    {now, since, opens_at, every_us, closed_at, well_at, failed, well, late, tries, retries left in thousandths,
--          cause, told, tally, silent, row, row_us, row_from}; `since` is 0 when it is closed; `row_us` is how long ago the
--          failures in a row began, `row_from` the place of the first call of them
local state, texts = read(KEYS[BREAKER])
local failed, well, late = sums(state)
return {
  now, state[OPENED_AT], state[OPENS_AT], state[EVERY_US], state[CLOSED_AT], state[WELL_AT], failed, floor(well + 0.5), late,
  state[TRIES], floor(state[TOKENS] * 1000), texts.cause, texts.told, texts.tally,
  texts.silent, row(state), now - state[RUN_AT], state[RUN_FROM],
}
