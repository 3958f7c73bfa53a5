// Tasks by the clock: when each schedule is due next, what it submitted last, what was missed. Asked for now and then.

import { ago, attribute, by, count, counted, h, keyed, left, text } from "./draw.js";
import { taskLink } from "./story.js";

const EVERY_MS = 10000;
let askedAt = -Infinity;
let known = [];
let readAt = 0;

/** Draw the panel, after asking once more every ten seconds; hidden while there are no schedules. */
export function schedules({ at }, { store }) {
  if (performance.now() - askedAt > EVERY_MS) {
    askedAt = performance.now();
    store.get("/schedules").then((found) => {
      known = found.schedules;
      readAt = found.at;
      text(by("schedules-trouble"), found.trouble);
      by("schedules-trouble").hidden = !found.trouble;
      draw(Math.max(at, readAt));
    }, () => {}); // the page says by itself that Flower does not answer
  }
  draw(Math.max(at, readAt));
}

function draw(at) {
  by("schedules-panel").hidden = !known.length;
  text(by("schedules-note"), known.length ? `${counted(known.length, "schedule")}, UTC` : "");
  keyed(by("schedules"), known, (one) => one.name, () => h("li", {}, h("b", { class: "cut" }), h("span", { class: "pill" }), h("span", { class: "muted" }), h("span", { class: "muted" })), (node, one) => {
    const [name, pill, line, last] = node.children;
    text(name, one.name);
    text(pill, one.state.length > 24 ? `${one.state.slice(0, 23)}…` : one.state);
    attribute(pill, "title", one.state);
    attribute(pill, "class", `pill ${one.state === "on time" ? "good" : one.overdue_s > 60 ? "bad" : "warn"}`);
    const next = one.next.length ? `next in ${left(one.next[0] - at)}, at ${stamp(one.next[0])}` : "no next time";
    text(line, `${one.rule} · ${next}${one.skipped ? ` · ${count(one.skipped)} missed` : ""}`);
    if (last.dataset.at === String(one.sent_for)) return;
    last.dataset.at = String(one.sent_for);
    last.replaceChildren(one.sent_for ? `last ${stamp(one.sent_for)}, ${ago(one.sent_for, at)}: ${counted(one.tasks, "task")} ` : "nothing submitted yet", one.task_id ? taskLink(one.task_id) : "");
  });
}

const stamp = (at) => new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ");
