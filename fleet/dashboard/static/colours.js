// What a cell of the map and a column of the table can show of a bot, and by what bots can be sorted.

import { clock, decimal, dollars, duration, left as until, percent, short } from "./draw.js";
import { STATES, TESTS } from "./store.js";

const OUT = STATES.indexOf("quarantined");
const PROBATION = STATES.indexOf("probation");
const HOUR_S = 3600;

const column = (name) => (bots, i) => bots.columns[name][i];
const share = (name) => (bots, i) => bots.columns[name][i] / 100;
const failed = (bots, i) => (bots.columns.completions[i] ? bots.columns.failed[i] / bots.columns.completions[i] : 0);
const silent = (bots, i, now) => (bots.columns.last_at[i] ? Math.max(0, now - bots.columns.last_at[i]) : HOUR_S);

export const isOut = (bots, i) => bots.columns.state[i] === OUT;

/** Evidence that sends a bot out: on probation half of the usual. */
export const enoughFor = (bots, i) => (bots.columns.state[i] === PROBATION ? bots.enough / 2 : bots.enough);

/** How near a bot is to being taken out, from 0; 1: it is as bad as those that are out, or is out. */
export const evidence = (bots, i) => (bots.enough ? bots.columns.evidence[i] / 10 / enoughFor(bots, i) : 0);

/** Seconds until a bot comes back; one that stays out until somebody releases it: longer than any other. */
const left = (bots, i, now) => (!isOut(bots, i) ? 0 : bots.columns.until[i] ? Math.max(1, bots.columns.until[i] - now) : Infinity);

/** Why a bot is out; of one that is suspected, what speaks most against it. */
export const reasonOf = (bots, i) => bots.reasons.get(i) || TESTS[bots.columns.test[i]];

/** Until when a bot is out, in words; `spell`: how a time is told. */
export function untilOf(bots, i, now, spell = clock) {
  if (!isOut(bots, i)) return "";
  const end = bots.columns.until[i];
  return end ? `${spell(end)}, in ${until(end - now)}` : "it is released";
}

/**
 * What cells can show: a value per bot, the hue of its scale and how a value is spelled. The darkest cells of a pool are
 * those of its 95th percentile, but at least `top`; with `most` it is that much in every pool.
 */
export const COLOURS = {
  health: { label: "health (evidence)", hue: "bad", of: evidence, show: (v) => (v ? `${percent(v)} of what takes it out` : "none"), most: 1, out: true },
  state: { label: "state", hue: "state", of: column("state"), names: STATES },
  reason: { label: "what speaks against it", hue: "test", of: column("test"), names: TESTS.map((name) => name || "nothing"), out: true },
  bad_percent: { label: "bad answers, share of its last tasks", hue: "bad", of: share("bad_percent"), show: percent, top: 0.3 },
  avoids_percent: { label: "avoids work, share of its last tasks", hue: "bad", of: share("avoids_percent"), show: percent, top: 0.3 },
  slow_percent: { label: "slow, share of its last tasks", hue: "slow", of: share("slow_percent"), show: percent, top: 0.3 },
  until: { label: "out, time until it is back", hue: "slow", of: (b, i, now) => Math.min(left(b, i, now), 86400), show: duration, top: 60 },
  per_hour: { label: "completions, last hour", hue: "good", of: column("per_hour"), show: short },
  failed: { label: "failed tasks in all, whoever's fault", hue: "bad", of: failed, show: percent, top: 0.05 },
  calls_failed: { label: "failed calls in all, also the provider's fault", hue: "bad", of: column("calls_failed"), show: short },
  load: { label: "tasks in hand", hue: "good", of: column("load"), show: short, top: 1 },
  mean_ms: { label: "mean time of all its tasks", hue: "slow", of: column("mean_ms"), show: (v) => duration(v / 1000) },
  cost_usd_micros: { label: "cost, in all", hue: "slow", of: column("cost_usd_micros"), show: dollars },
  silent: { label: "time since its last task", hue: "slow", of: silent, show: duration, top: 60 },
};

/** What bots can be sorted by, each both ways; `up`: the smallest comes first unless somebody turns it round. */
export const SORTS = {
  pool: { label: "pool, number", of: (b, i) => i, up: true },
  state: { label: "state", of: column("state") },
  health: { label: "evidence", of: (b, i) => (isOut(b, i) ? 10 : 0) + evidence(b, i) + b.columns.alike[i] / 1000 },
  reason: { label: "reason", of: (b, i) => (isOut(b, i) ? 10 : 0) + (b.columns.test[i] ? 4 - b.columns.test[i] : 0) },
  until: { label: "time until it is back", of: left },
  bad_percent: { label: "bad answers", of: column("bad_percent") },
  avoids_percent: { label: "avoids work", of: column("avoids_percent") },
  slow_percent: { label: "slow", of: column("slow_percent") },
  alike: { label: "alike", of: column("alike") },
  per_hour: { label: "completions, last hour", of: column("per_hour") },
  completions: { label: "completions, in all", of: column("completions") },
  failed: { label: "share of failures, in all", of: failed },
  calls_failed: { label: "failed calls, in all", of: column("calls_failed") },
  load: { label: "tasks in hand", of: column("load") },
  mean_ms: { label: "mean time of all its tasks", of: column("mean_ms") },
  cost_usd_micros: { label: "cost, in all", of: column("cost_usd_micros") },
  silent: { label: "time since its last task", of: (b, i) => -b.columns.last_at[i] },
};

/** Sort rows of bots: equals stay in the order of their pools and numbers, whichever way. */
export function sorted(rows, key, isUp, bots, now) {
  const { of } = SORTS[key];
  const values = new Float64Array(bots.size);
  for (const i of rows) values[i] = of(bots, i, now);
  return rows.sort(isUp ? (i, j) => values[i] - values[j] || i - j : (i, j) => (values[j] > values[i] ? 1 : values[j] < values[i] ? -1 : i - j));
}

/** Spell what speaks against a bot; empty: nothing does. */
export function against(bots, i, now) {
  const found = bots.columns.evidence[i];
  const parts = [];
  if (isOut(bots, i)) parts.push(`out until ${untilOf(bots, i, now)}`);
  if (reasonOf(bots, i)) parts.push(reasonOf(bots, i));
  if (found && !isOut(bots, i)) parts.push(`evidence ${decimal(found / 10)} of ${decimal(enoughFor(bots, i))}`);
  if (bots.columns.alike[i]) parts.push("answers like others");
  return parts.join(", ");
}
