// The newest asks, one question to several bots each: who agreed, what was spared, what it cost; opened, its members.

import { ago, attribute, by, count, counted, dollars, duration, h, keyed, text } from "./draw.js";
import { taskLink } from "./story.js";

const PILLS = { ok: "good", degraded: "warn", failed: "bad" };
const opened = new Set();
let known = [];

/** What is asked for along with the state. */
export const newestAsks = { name: "asks", everyMs: 5000, told: (found) => (known = found.asks) };

/** Draw the panel; hidden while nobody has asked. */
export function asks({ at }) {
  by("asks-panel").hidden = !known.length;
  if (!known.length) return;
  const spared = known.reduce((sum, one) => sum + one.n - one.asked, 0);
  text(by("asks-note"), `the newest ${count(known.length)}; ${counted(spared, "member")} never asked`);
  keyed(by("asks"), known, (one) => one.ask_id, row, (node, one) => {
    const [head, line, members] = node.children;
    text(head.lastElementChild, ago(one.at, at));
    members.hidden = !opened.has(one.ask_id);
    attribute(head.firstElementChild, "aria-expanded", String(opened.has(one.ask_id)));
    text(line, one.said);
  });
}

function row(one) {
  const name = h("button", { type: "button", class: "link", "aria-expanded": "false" }, one.kind);
  attribute(name, "title", one.ask_id);
  const cost = one.cost_usd_picos === null ? "cost unknown" : dollars(one.cost_usd_picos / 1e6);
  const members = h("ul", { class: "letters", hidden: true }, ...one.members.map((member) => h("li", {}, taskLink(member.task_id),
    h("span", { class: "muted" }, member.side === null ? (member.error ?? member.status) : `answer ${member.side + 1}`), h("span", { class: "muted" }, member.bot ?? member.pool ?? ""))));
  name.onclick = () => {
    if (!opened.delete(one.ask_id)) opened.add(one.ask_id);
    members.hidden = !opened.has(one.ask_id);
    attribute(name, "aria-expanded", String(!members.hidden));
  };
  return h("li", {}, h("div", { class: "line" }, name, h("span", { class: `pill ${PILLS[one.status]}` }, one.status), h("span", { class: "muted" }, `${one.aggregate} · ${cost} · ${duration(one.took_ms / 1000)}`), h("time", { class: "muted end" })),
    h("p", { class: "muted" }), members);
}
