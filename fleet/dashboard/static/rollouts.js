// What is tried on a share of a pool's tasks, how it compares with the rest, and what went back within a day.

import { ago, attribute, by, h, keyed, meter, percent, text } from "./draw.js";

/** Draw the panel; hidden while nothing is tried, nor went back lately. */
export function rollouts({ at, rollouts: known }) {
  by("rollouts-panel").hidden = !known.length;
  keyed(by("rollouts"), known, (one) => one.id, row, (node, one) => {
    const [head, line, bar, why] = node.children;
    const [, pill, share, since] = head.children;
    const worst = Math.max(...one.aspects.map((row) => row.evidence));
    text(pill, one.word === "back" ? "went back" : "running");
    attribute(pill, "class", `pill ${one.word === "back" ? "bad" : worst > 0.5 ? "warn" : "good"}`);
    text(share, `${percent(one.share)} of the tasks of ${one.pool}`);
    text(since, ago(one.ended_at ?? one.since, at));
    text(line, one.line);
    bar.hidden = one.word === "back";
    meter(bar, worst, 1);
    attribute(bar.firstChild.firstChild, "class", worst > 0.5 ? "near" : "fine");
    attribute(bar, "title", `${percent(worst)} of the evidence that sends it back`);
    why.hidden = !one.why;
    text(why, one.why);
  });
}

function row(one) {
  return h("li", {}, h("div", { class: "line" }, h("b", { class: "cut", title: one.id }, one.what), h("span", { class: "pill" }), h("span", { class: "muted" }), h("time", { class: "muted end" })),
    h("p", { class: "muted" }), h("div", { class: "meter" }), h("p", { class: "trouble" }));
}
