// The bill: what every call has cost this hour and today, by pool and model; what nobody knows, and what has no price.

import { attribute, by, count, counted, dollars, h, keyed, meter, text } from "./draw.js";

const micros = (picos) => picos / 1e6;

/** What the sum beside the cost of tasks is made of, so that both add up; nothing where they read the same. */
function besideCost(billed, charged, unknown) {
  if (dollars(billed) === dollars(charged)) return [];
  const less = unknown ? "for calls that are unknown here, or on their way here" : "for calls that are on their way here";
  return [billed > charged ? `that is the ${dollars(charged)} of Cost, and ${dollars(billed - charged)} for calls in no task's result` : `Cost has ${dollars(charged - billed)} more, ${less}`];
}

export function bill({ bill: all, cost }) {
  const panel = by("bill-panel");
  const later = all.batches;
  panel.hidden = !(all.ever.calls || later.gathering || later.tasks);
  if (panel.hidden) return;
  text(by("bill-hour"), dollars(micros(all.hour.usd_picos)));
  text(by("bill-day"), dollars(micros(all.day.usd_picos)));
  const notes = [`${counted(all.day.calls, "call")} today`, `${dollars(micros(all.ever.usd_picos))} in all`];
  if (later.tasks) notes.push(`${counted(later.tasks, "task")} in batches (fleet lanes)`);
  if (later.gathering) notes.push(`${counted(later.gathering, "task")} waiting for a batch`);
  const hits = all.cache.reduce((sum, row) => sum + row.hits, 0);
  const saved = all.cache.reduce((sum, row) => sum + row.saved_usd_micros, 0);
  if (hits) notes.push(`${dollars(saved)} saved: ${counted(hits, "task")} got the answer of an equal one (fleet cache)`);
  notes.push(...besideCost(micros(all.ever.usd_picos), cost.total_usd_micros, all.ever.unknown_calls));
  text(by("bill-note"), notes.join(" · "));
  const lost = by("bill-unknown");
  lost.hidden = !(all.ever.unknown_calls || all.day.unpriced_calls);
  text(lost, [
    all.ever.unknown_calls ? `${counted(all.ever.unknown_calls, "call")} unknown, ${dollars(micros(all.ever.unknown_usd_picos))} reserved: cut off, or the worker died (fleet bill unknown)` : "",
    all.day.unpriced_calls ? `${counted(all.day.unpriced_calls, "call")} of today without a price` : "",
  ].filter(Boolean).join(" · "));
  const most = Math.max(1, ...all.rows.map((row) => row.day.usd_picos));
  keyed(by("bill-rows"), all.rows, (row) => `${row.pool}|${row.model}`, (row) => h("li", { class: "use" },
    h("span", { class: "cut", title: `${row.pool}, ${row.model}` }, row.pool, " ", h("small", {}, row.model)), h("div", { class: "meter" }), h("b")), (node, row) => {
    meter(node.children[1], row.day.usd_picos, most);
    attribute(node.children[1].firstChild.firstChild, "class", "fine");
    const unknown = row.ever.unknown_calls ? `, ${count(row.ever.unknown_calls)} unknown` : "";
    text(node.children[2], `${dollars(micros(row.hour.usd_picos))} this hour, ${dollars(micros(row.day.usd_picos))} today${unknown}`);
  });
}
