// The bots as a table, for who would rather read than look: the heat map's order and filter, a hundred rows at a time.

import { enoughFor, reasonOf, untilOf } from "./colours.js";
import { ago, by, count, decimal, dollars, duration, h, percent, short } from "./draw.js";
import { STATES } from "./store.js";

const PAGE_ROWS = 100;
const HEADS = [["bot", "pool"], ["state", "state"], ["evidence", "health"], ["reason", "reason"], ["out until", "until"], ["bad answers", "bad_percent"], ["avoids", "avoids_percent"], ["slow", "slow_percent"], ["alike", "alike"], ["last hour", "per_hour"], ["in all", "completions"], ["failed", "failed"], ["failed calls", "calls_failed"], ["in hand", "load"], ["a task", "mean_ms"], ["cost", "cost_usd_micros"], ["last task", "silent"]];

export class BotTable {
  constructor(heat, open, sortBy) {
    this.heat = heat;
    this.open = open;
    this.sortBy = sortBy;
    this.page = 0;
    this.box = by("bot-table");
  }

  draw() {
    const { bots, order, now, sort, isUp } = this.heat;
    if (!bots || this.box.hidden) return;
    const pages = Math.max(1, Math.ceil(order.length / PAGE_ROWS));
    this.page = Math.min(this.page, pages - 1);
    const focused = this.box.contains(document.activeElement) ? document.activeElement.textContent : null;
    const shown = order.slice(this.page * PAGE_ROWS, (this.page + 1) * PAGE_ROWS);
    const go = (step) => () => ((this.page += step), this.draw());
    this.box.replaceChildren(
      h("table", { class: "bots" },
        h("thead", {}, h("tr", {}, ...HEADS.map(([label, key]) => h("th", { scope: "col", "aria-sort": key !== sort ? "none" : isUp ? "ascending" : "descending" },
          h("button", { type: "button", class: "link", onclick: () => this.sortBy(key) }, label))))),
        h("tbody", {}, ...shown.map((i) => this.#row(bots, i, now)))),
      h("p", { class: "line pages" }, h("button", { type: "button", class: "quiet", disabled: this.page === 0, onclick: go(-1) }, "Previous"),
        h("span", {}, `page ${this.page + 1} of ${count(pages)}`), h("button", { type: "button", class: "quiet", disabled: this.page + 1 >= pages, onclick: go(1) }, "Next")));
    if (focused) [...this.box.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
  }

  #row(bots, i, now) {
    const { names, columns: c } = bots;
    const failed = c.completions[i] && c.failed[i] ? `${short(c.failed[i])} (${percent(c.failed[i] / c.completions[i])})` : "–";
    const part = (percents) => (percents ? `${percents}%` : "–");
    const health = [c.evidence[i] ? `${decimal(c.evidence[i] / 10)} of ${decimal(enoughFor(bots, i))}` : "–", reasonOf(bots, i) || "–", untilOf(bots, i, now) || "–", part(c.bad_percent[i]), part(c.avoids_percent[i]), part(c.slow_percent[i]), c.alike[i] ? "yes" : "–"];
    const cells = [...health, short(c.per_hour[i]), short(c.completions[i]), failed, short(c.calls_failed[i]), short(c.load[i]), c.mean_ms[i] ? duration(c.mean_ms[i] / 1000) : "–", dollars(c.cost_usd_micros[i]), ago(c.last_at[i], now)];
    return h("tr", {}, h("th", { scope: "row" }, h("button", { type: "button", class: "link", onclick: () => this.open(names[i]) }, names[i])),
      h("td", {}, h("span", { class: `pill state-${STATES[c.state[i]]}` }, STATES[c.state[i]])), ...cells.map((cell) => h("td", {}, cell)));
  }
}
