// Budgets of fleet, pools, tenants, bots and runs: how much of each is spent, and when it ends at this pace.

import { attribute, by, count, dollars, h, keyed, percent, text } from "./draw.js";

const NEAR = 0.8; // used share from which a bar turns yellow

/** Draw the panel; hidden while nothing has a budget. */
export function budgets({ budgets: all }) {
  by("budgets-panel").hidden = !all.length;
  text(by("budgets-note"), all.length ? `${count(all.length)} in dollars, UTC` : "");
  const rows = all.flatMap((one) => one.amounts.map((amount) => ({ ...amount, scope: one.scope, isLive: one.is_live, reserved: one.reserved_usd, whenFull: one.when_full })));
  keyed(by("budgets"), rows, (row) => `${row.scope} ${row.period}`, line, (node, row) => {
    const [head, share, figure, told] = node.children;
    text(head.children[0], row.scope);
    head.children[1].hidden = !row.isLive || row.scope.startsWith("run:");
    attribute(head, "title", `when it is used up: ${row.whenFull}`);
    share.firstChild.style.width = `${Math.min(100, row.share * 100)}%`;
    attribute(share.firstChild, "class", row.share >= 1 ? "bad" : row.share >= NEAR ? "near" : "fine");
    text(figure, percent(row.share));
    text(told, `${row.line}${row.reserved > 0 ? ` · ${dollars(row.reserved * 1e6)} reserved` : ""}`);
  });
}

function line() {
  return h("li", {}, h("span", { class: "scope" }, h("b", { class: "cut" }), h("span", { class: "pill warn", hidden: true }, "set live")),
    h("div", { class: "share" }, h("span", { class: "fine" })), h("b", { class: "figure" }), h("span", { class: "muted" }));
}
