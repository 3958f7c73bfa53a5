// Payouts: what was earned on each network and is not paid, where the last payout stands, and what is about to change.

import { attribute, by, counted, dayAndTime, h, keyed, meter, text } from "./draw.js";

const STATES = ["prepared", "signed", "broadcast", "settled", "failed"];

/** Draw the panel; hidden while nothing was earned or paid. */
export function payouts({ at, bill: { earned, payouts: all } }) {
  const panel = by("payouts-panel");
  const some = earned.filter((one) => one.tasks);
  panel.hidden = !(some.length || all.rows.length || all.addresses.length);
  if (panel.hidden) return;
  text(by("payouts-note"), some.map((one) => `${one.tokens} earned by ${counted(one.tasks, "task")} on ${one.network}, ${one.unpaid} in no payout yet`).join(" \u00b7 ")
    || "nothing is earned just now");
  const guards = all.addresses.map((one) => [[one.changed, "changed"], [one.new, "new"]].filter(([count]) => count)
    .map(([count, what]) => `${count} ${what} ${count === 1 ? "address" : "addresses"}`).join(" and ")
    + ` on ${one.network}, ${one.until === null ? "not seen by fleet payouts due yet" : `paid from ${dayAndTime(one.until)} on`}`);
  if (all.terms_hold_at !== null) guards.push(`changed terms hold from ${dayAndTime(all.terms_hold_at)} on`);
  by("payouts-guards").hidden = !guards.length;
  text(by("payouts-guards"), guards.join(" \u00b7 "));
  keyed(by("payouts-rows"), all.rows, (row) => row.network, (row) => h("li", { class: "use" },
    h("span", { class: "cut", title: row.network }), h("div", { class: "meter" }), h("b")), (node, row) => {
    const number = (state) => row.states[state] || 0;
    const whole = STATES.reduce((sum, state) => sum + number(state), 0);
    text(node.children[0], row.payout);
    attribute(node.children[0], "title", `${row.payout} on ${row.network}`);
    meter(node.children[1], number("settled"), Math.max(1, whole));
    attribute(node.children[1].firstChild.firstChild, "class", number("failed") || (row.is_open && unsent(row) && at > row.expires_at) ? "near" : "fine");
    const states = STATES.filter(number).map((state) => `${number(state)} ${state}`).join(", ");
    const when = row.is_open ? `under way since ${dayAndTime(row.prepared_at)}` : `ended ${dayAndTime(row.moved_at)}`;
    const end = row.is_open && unsent(row) ? `, ${at > row.expires_at ? "expired" : "expires"} ${dayAndTime(row.expires_at)}` : "";
    text(node.children[2], `${row.tokens} to ${counted(row.payments, "payee")}: ${states}, ${when}${end}${row.why ? `: ${row.why}` : ""}`);
  });
}

const unsent = (row) => (row.states.prepared || 0) + (row.states.signed || 0);
