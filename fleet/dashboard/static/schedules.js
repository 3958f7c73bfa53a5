// Tasks by the clock: when each schedule is due next, what it submitted last, what was missed.

import { ago, attribute, by, count, counted, h, keyed, left, text } from "./draw.js";
import { taskLink } from "./story.js";

let known = [];
let readAt = 0;

/** What is asked for along with the state. */
export const askedSchedules = { name: "schedules", everyMs: 10000, told };

function told(found) {
  known = found.schedules;
  readAt = found.at;
  text(by("schedules-trouble"), found.trouble);
  by("schedules-trouble").hidden = !found.trouble;
}

/** Draw the panel; hidden while there are no schedules. */
export function schedules(view) {
  const at = Math.max(view.at, readAt);
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
