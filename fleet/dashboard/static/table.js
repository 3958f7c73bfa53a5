// The bots as a table, for who would rather read than look: the heat map's order and filter, a hundred rows at a time.

import { enoughFor, reasonOf, untilOf } from "./colours.js";
import { ago, attribute, by, count, decimal, dollars, duration, h, percent, short, text, timeOfDay } from "./draw.js";
import { STATES } from "./store.js";

const PAGE_ROWS = 100;
/** Columns: head, what a click sorts by. The first two are drawn by hand, the others are what `cells` returns. */
const HEADS = [["bot", "pool"], ["state", "state"], ["evidence", "health"], ["reason", "reason"], ["out until (UTC)", "until"], ["bad answers", "bad_percent"], ["avoids", "avoids_percent"], ["slow", "slow_percent"], ["alike", "alike"], ["last hour", "per_hour"], ["in all", "completions"], ["failed", "failed"], ["failed calls", "calls_failed"], ["in hand", "load"], ["a task", "mean_ms"], ["cost", "cost_usd_micros"], ["last task", "silent"]];

export class BotTable {
  constructor(heat, open, sortBy) {
    this.heat = heat;
    this.open = open;
    this.page = 0;
    this.box = by("bot-table");
    this.heads = HEADS.map(([label, key]) => h("th", { scope: "col" }, h("button", { type: "button", class: "link", onclick: () => sortBy(key) }, label)));
    this.rows = h("tbody");
    const step = (label, by_) => h("button", { type: "button", class: "quiet", onclick: () => ((this.page += by_), this.draw()) }, label);
    this.pager = [step("Previous", -1), h("span"), step("Next", 1)];
    this.box.replaceChildren(h("table", { class: "bots" }, h("thead", {}, h("tr", {}, ...this.heads)), this.rows), h("p", { class: "line pages" }, ...this.pager), h("p", { class: "note" }, "Bad answers, avoids and slow: shares of its last tasks. Failed, failed calls, a task and cost: in all."));
  }

  draw() {
    const { bots, order, sort, isUp } = this.heat;
    if (!bots || this.box.hidden) return;
    const pages = Math.max(1, Math.ceil(order.length / PAGE_ROWS));
    this.page = Math.max(0, Math.min(this.page, pages - 1));
    this.heads.forEach((head, k) => attribute(head, "aria-sort", HEADS[k][1] !== sort ? "none" : isUp ? "ascending" : "descending"));
    const shown = order.slice(this.page * PAGE_ROWS, (this.page + 1) * PAGE_ROWS);
    const focused = document.activeElement.closest?.("tbody tr")?.dataset.bot;
    const { children } = this.rows;
    while (children.length > shown.length) this.rows.lastChild.remove();
    while (children.length < shown.length) this.rows.append(this.#row());
    shown.forEach((i, k) => this.#show(children[k], i));
    if (focused) [...children].find((row) => row.dataset.bot === focused)?.querySelector("button").focus(); // its row has moved
    const [previous, at, next] = this.pager;
    text(at, `page ${this.page + 1} of ${count(pages)}`);
    previous.disabled = this.page === 0;
    next.disabled = this.page + 1 >= pages;
  }

  /** A row is of a place, not of a bot: when all bots change places, no row is made anew. */
  #row() {
    let pressed = null; // a pointer's click is meant for the bot that was there when it went down, a key's for that of now
    const texts = HEADS.map(() => document.createTextNode(""));
    const name = h("button", { type: "button", class: "link", onpointerdown: () => (pressed = row.dataset.bot), onclick: ({ detail }) => this.open((detail && pressed) || row.dataset.bot) }, texts[0]);
    const pill = h("span", {}, texts[1]);
    const row = h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, pill), ...texts.slice(2).map((said) => h("td", {}, said)));
    return Object.assign(row, { name, pill, texts, said: texts.map(() => "") });
  }

  #show(row, i) {
    const { bots, now } = this.heat;
    const [bot, state] = [bots.names[i], STATES[bots.columns.state[i]]];
    row.dataset.bot = bot;
    attribute(row.name, "aria-pressed", this.heat.isChoosing ? String(this.heat.selected.has(bot)) : null);
    if (row.said[1] !== state) row.pill.className = `pill state-${state}`;
    const said = [bot, state, ...cells(bots, i, now)];
    said.forEach((value, k) => value !== row.said[k] && (row.texts[k].data = value));
    row.said = said;
  }
}

/** What a row says behind name and state. */
function cells(bots, i, now) {
  const c = bots.columns;
  const part = (percents) => (percents ? `${percents}%` : "–");
  return [
    c.evidence[i] ? `${decimal(c.evidence[i] / 10)} of ${decimal(enoughFor(bots, i))}` : "–", reasonOf(bots, i) || "–", untilOf(bots, i, now, timeOfDay) || "–",
    part(c.bad_percent[i]), part(c.avoids_percent[i]), part(c.slow_percent[i]), c.alike[i] ? "yes" : "–", short(c.per_hour[i]), short(c.completions[i]),
    c.completions[i] && c.failed[i] ? `${short(c.failed[i])} (${percent(c.failed[i] / c.completions[i])})` : "–", short(c.calls_failed[i]), short(c.load[i]),
    c.mean_ms[i] ? duration(c.mean_ms[i] / 1000) : "–", dollars(c.cost_usd_micros[i]), ago(c.last_at[i], now),
  ];
}
