// Documents that tasks share: which share of calls reads each from its provider's cache, and what that saves.

import { attribute, by, count, counted, dollars, h, keyed, meter, percent, short, text } from "./draw.js";

const WELL = 0.5; // share of calls below which the finding cache_missed comes

const calls = (reads) => reads.hit + reads.cold + reads.missed;
const share = (reads) => (calls(reads) ? reads.hit / calls(reads) : 0);
const saved = ({ saved_picos: picos }) => (picos < 0 ? `${dollars(-picos / 1e6)} more paid` : `${dollars(picos / 1e6)} saved`);

/** Draw the panel; hidden while no document is stored or asked about. */
export function contexts({ bill: { contexts: all } }) {
  const panel = by("contexts-panel");
  panel.hidden = !(all.stored || all.rows.length);
  if (panel.hidden) return;
  const notes = [`${counted(all.stored, "document")} stored`];
  if (calls(all.lately)) notes.push(`${percent(share(all.lately))} of ${counted(calls(all.lately), "call")} read from a cache`);
  if (calls(all.ever)) notes.push(`${saved(all.ever)} in all`);
  text(by("contexts-note"), notes.join(" \u00b7 "));
  keyed(by("contexts-rows"), all.rows, (row) => row.id, (row) => h("li", { class: "use" },
    h("span", { class: "cut", title: row.id }), h("div", { class: "meter" }), h("b")), (node, { id, name, reads }) => {
    text(node.children[0], name || id);
    meter(node.children[1], share(reads), 1);
    attribute(node.children[1].firstChild.firstChild, "class", share(reads) < WELL ? "near" : "fine");
    const first = `${count(reads.cold)} went first${reads.missed ? `, ${count(reads.missed)} missed it` : ""}`;
    text(node.children[2], `${percent(share(reads))} of ${short(calls(reads))} read it, ${first}, ${saved(reads)}`);
  });
}
