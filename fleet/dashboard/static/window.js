// The window that charts and sums are of: 15 minutes, an hour or a day. One choice for all cards, said on each of them.

import { attribute, by, count, decimal, dollars, h, keyed, percent, text } from "./draw.js";

const WINDOWS = { "15m": { words: "last 15 minutes", minutes: 15 }, "1h": { words: "last hour", minutes: 60 }, "24h": { words: "last 24 hours" } };
const COLUMNS = ["at", "completions", "ok", "degraded", "failed", "calls", "calls_failed", "rate_limited", "tokens", "cost_usd_micros", "cpu_percent", "rss_mb", "busy"];

let chosen = "1h";

/** The buttons that choose; `changed` is called with the new window. */
export function windowButtons(remembered, changed) {
  if (remembered in WINDOWS) chosen = remembered;
  const place = by("windows");
  keyed(place, Object.keys(WINDOWS), (name) => name, (name) =>
    h("button", { type: "button", class: "quiet", "aria-label": `${name}: charts of the ${WINDOWS[name].words}`, onclick: () => (choose(name), changed(name)) }, name), () => {});
  const choose = (name) => {
    chosen = name;
    for (const button of place.children) button.setAttribute("aria-pressed", String(button.dataset.key === chosen));
  };
  choose(chosen);
}

/** What the charts draw of a view: a series by minutes or hours, the sums of the window, and its marks. */
export function inWindow(view) {
  const { minutes } = WINDOWS[chosen];
  const from = minutes ? view.minutes : view.hours;
  const series = Object.fromEntries(COLUMNS.map((name) => [name, minutes ? from[name].slice(-minutes) : from[name]]));
  for (const place of document.querySelectorAll("[data-window]")) text(place, `${place.dataset.window}${WINDOWS[chosen].words}`);
  return { series, sums: view.spans.find((span) => span.name === chosen), marks: view.marks };
}

/** The headlines: the last minute, and how it stands against the hour before it. */
export function headlines({ trends }) {
  change("rate-change", trends.completions, growth, "");
  text(by("rate"), tasks(trends.completions.minute ?? 0));
  const failed = trends.failed_share;
  text(by("failed-share"), failed.minute === null ? "–" : percent(failed.minute));
  text(by("failed-of"), failed.minute === null ? "no task ended in the last minute" : "of the last minute's tasks failed");
  change("failed-change", failed, (c) => `${points(c)} against the hour`, "worse");
  const calls = trends.calls_failed_share;
  text(by("calls-share"), calls.minute === null ? "" : `${percent(calls.minute)} of these tasks' calls failed`);
  change("calls-change", calls, (c) => `${points(c)} against the hour`, "worse");
  text(by("cost-minute"), dollars(trends.cost_usd_micros.minute ?? 0));
  change("cost-change", trends.cost_usd_micros, growth, "");
}

/** Tasks of a minute are a mean of two halves of minutes: their parts say nothing once there are ten. */
const tasks = (n) => (n < 10 ? decimal(n) : count(n));

const growth = (c) => (c > 2 ? `(${decimal(c + 1)} times the hour's)` : `${c < 0 ? "−" : "+"}${percent(Math.abs(c))} against the hour`);

const points = (c) => `${c < 0 ? "−" : "+"}${Number(Math.abs(c * 100).toFixed(1))} points`;

function change(id, trend, spell, worse) {
  const isKnown = trend.change !== null;
  const said = isKnown ? spell(trend.change) : "";
  text(by(id), /^[+−]0(%| )/.test(said) ? "" : said); // no change is no news
  attribute(by(id), "class", worse && isKnown && trend.change > 0.01 ? "change worse" : "change");
}
