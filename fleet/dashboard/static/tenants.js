// Which tenants wait, for how long, and what share of the takes each has: those with the most tasks.

import { ago, attribute, by, counted, h, keyed, meter, percent, short, text } from "./draw.js";

/** Draw the panel; hidden while nothing waits that has a tenant. */
export function tenants({ at, tenants: { rows, others, others_waiting } }) {
  by("tenants-panel").hidden = !rows.length;
  text(by("tenants-note"), others ? `${counted(others, "more")}, ${counted(others_waiting, "task")}` : "who waits, and whose turn comes how often");
  keyed(by("tenants"), rows, (one) => `${one.pool} ${one.flow}`, row, (node, one) => {
    const [head, line, bar] = node.children;
    const [name, pool, since] = head.children;
    text(name, one.tenant);
    attribute(name, "title", one.tenant);
    text(pool, one.pool);
    text(since, one.since === null ? "" : ago(one.since, at).replace(/ ago$/, ""));
    attribute(since, "title", "for how long its next task has waited");
    text(line, `${short(one.waiting)} waiting, ${percent(one.share)} of the takes, weight ${one.weight}`);
    meter(bar, one.share, 1);
    attribute(bar, "title", "its share of the takes");
  });
}

function row() {
  return h("li", {}, h("div", { class: "line" }, h("b", { class: "cut" }), h("span", { class: "muted" }), h("time", { class: "muted end" })),
    h("p", { class: "muted" }), h("div", { class: "meter" }));
}
