// The panels beside the heat map: three signals, error matrix, pools, limits, cost, events. Drawn anew from each view.

import { headlines, inWindow } from "./window.js";
import { ago, attribute, bars, by, clock, count, counted, dayAndTime, decimal, dollars, duration, h, keyed, left, line, meter, named, percent, short, svg, text, widthOf } from "./draw.js";
import { spoken, taskLink } from "./story.js";
import { askPause } from "./safe.js";
import { gateOf, speaking } from "./store.js";

const PRIORITIES = ["critical", "high", "normal", "low", "bulk"];
const MATRIX_ROWS = 12;
const EVENT_ROWS = 60;
const TOLD_CHARS = 60; // by which an answer is known again in a finding, which may have cut it

const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Draw every panel. `out` counts quarantined bots by pool, `act` carries out an operator's action, `open` opens a bot. */
export function panels(view, { out, act, open, mayAct }) {
  const shown = inWindow(view);
  headlines(view);
  completions(view, shown);
  errors(view, shown);
  resources(view, shown);
  matrix(view.errors, open);
  tools(view.tools);
  pools(view, out, act, mayAct);
  limits(view);
  cost(view);
  events(view, open);
}

function swatches(place, pairs) {
  keyed(place, pairs, ([name]) => name, ([, style]) => h("span", { class: "swatch" }, h("i", { class: `dot ${style}` }), h("b"), h("span")),
    (node, [name, , value, noun = name]) => (text(node.children[1], value), text(node.children[2], ` ${noun}`)));
}

function completions({ totals, spread, recent, durations }, { series, sums, marks }) {
  bars(by("spark-completions"), series.at, [
    { name: "ok", class: "ok", values: series.ok },
    { name: "degraded", class: "degraded", values: series.degraded },
    { name: "failed", class: "bad", values: series.failed },
  ], { marks });
  swatches(by("completed"), [
    ["ok", "ok", short(sums.ok)],
    ["degraded", "degraded", short(sums.degraded)],
    ["failed", "bad", short(sums.failed)],
    ["ever", "none", short(totals.completions ?? 0)],
  ]);
  strip(by("spread-strip"), spread);
  const silent = spread.silent ? `${count(spread.silent)} of ${count(spread.bots)} silent` : "none silent";
  const even = spread.jain === null ? "" : `, evenness ${decimal(spread.jain)}`;
  text(by("spread"), recent.completions || spread.max
    ? `Per bot, last hour: median ${decimal(spread.p50)}, 10–90% ${decimal(spread.p10)}–${decimal(spread.p90)}; ${silent}${even}`
    : "No completions yet.");
  const parts = [["queued", durations.queued], ["limited", durations.limited], ["at work", durations.ran]];
  text(by("durations"), durations.ran.p50 === null ? "" : `In the last hour a task was ${parts.map(([name, q]) => `${name} ${duration(q.p50 / 1000)} (99%: ${duration(q.p99 / 1000)})`).join(", ")}.`);
}

/** Min to max as a thin line, the middle 80% as a bar, the median as a tick. */
function strip(place, spread) {
  const key = JSON.stringify(spread);
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  const x = (value) => (spread.max ? (2 + (value / spread.max) * 296).toFixed(1) : 2);
  const wide = Math.max(2, x(spread.p90) - x(spread.p10));
  place.replaceChildren(svg("svg", { viewBox: "0 0 300 14", preserveAspectRatio: "none", role: "img", "aria-label": `spread over bots: least ${spread.min}, median ${spread.p50}, most ${spread.max}` },
    svg("path", { class: "base", d: "M0 7H300" }),
    svg("path", { class: "whisker", d: `M${x(spread.min)} 7H${x(spread.max)}` }),
    svg("rect", { class: "box", x: x(spread.p10), width: wide, y: 2, height: 10, rx: 2 }),
    svg("path", { class: "median", d: `M${x(spread.p50)} 0V14` })));
  place.tipAt = () => `completions per bot, last hour: least ${decimal(spread.min)}, median ${decimal(spread.p50)}, most ${decimal(spread.max)}`;
}

function errors({ verdict: who, diagnoses }, { series, sums, marks }) {
  const rest = series.calls_failed.map((n, i) => Math.max(0, n - series.rate_limited[i]));
  bars(by("spark-errors"), series.at, [
    { name: "failed tasks", class: "bad", values: series.failed },
    { name: "other failed calls", class: "call", values: rest },
    { name: "429s", class: "limited", values: series.rate_limited },
  ], { marks });
  swatches(by("failed"), [
    ["tasks", "bad", short(sums.failed), sums.failed === 1 ? "failed task" : "failed tasks"],
    ["calls", "call", short(sums.calls_failed), sums.calls_failed === 1 ? "failed call of ended tasks" : "failed calls of ended tasks"],
    ["429s", "limited", short(sums.rate_limited), sums.rate_limited === 1 ? "429 among them" : "429s among them"],
  ]);
  const { verdict, culprit, reason } = who;
  const mark = { none: "✓", unclear: "≈" }[verdict] ?? "!";
  text(by("verdict"), `${mark} ${verdict === "none" ? "nothing fails now" : verdict}${culprit ? `: ${culprit}` : ""}`);
  attribute(by("verdict"), "class", `pill ${{ none: "good", unclear: "warn" }[verdict] ?? "bad"}`);
  const isTold = culprit && diagnoses.some((one) => one.about === culprit); // the finding says what the provider answered
  text(by("verdict-why"), verdict === "none" && !who.failed ? "" : isTold ? reason.split(": ")[0] : reason);
}

function resources(view, { series: shown, marks }) {
  wanted(view);
  brokers(view);
  const { resources: told, limits: all, suspects } = view;
  const living = speaking(view);
  const used = Object.fromEntries(["busy", "slots", "cpu_percent", "rss_mb"].map((name) => [name, sum(living.map((worker) => worker[name]))]));
  text(by("busy"), `${count(used.busy)} / ${count(used.slots)}`);
  const lent = sum(living.map((worker) => Math.max(0, worker.busy - worker.slots))); // beyond its own, while calls hang
  text(by("slots"), ["slots busy", lent > 0 && `${count(lent)} of them lent`, suspects && `${counted(suspects, "suspect")} apart`].filter(Boolean).join(", "));
  const tightest = [...all].map(tightness).sort((a, b) => b.share - a.share)[0];
  const isTokens = tightest?.what === "tokens";
  const allowed = sum(all.map((limit) => (isTokens ? limit.tpm : limit.rpm) ?? 0));
  const gauges = [
    { name: "CPU", value: cores(used.cpu_percent), values: upTo(shown.cpu_percent, used.cpu_percent), show: cores },
    { name: "Memory", value: `${short(used.rss_mb)} MB`, values: upTo(shown.rss_mb, used.rss_mb), show: (v) => `${short(v)} MB` },
    { name: "API limits", value: tightest ? percent(tightest.share) : "no limit", values: isTokens ? shown.tokens : shown.calls, show: (v) => `${short(v)} ${isTokens ? "tokens" : "calls"}`, most: (allowed * (shown.at[1] - shown.at[0])) / 60, hint: tightest ? `${tightest.what} of ${tightest.limit}` : "" },
  ];
  keyed(by("gauges"), gauges, (g) => g.name, (g) => h("div", { class: "gauge" }, h("span", {}, g.name), h("b"), h("div", { class: "chart" })), (node, g) => {
    const [label, value, chart] = node.children;
    text(value, g.value);
    attribute(label, "title", g.hint || null);
    line(chart, shown.at, g.values, { most: g.most ?? 0, show: g.show, name: g.name, marks });
  });
  const silent = told.workers.length - living.length;
  text(by("workers"), told.workers.length
    ? `${counted(told.workers.length, "worker")}${silent ? `, ${count(silent)} silent` : ""}; Redis ${short(told.redis_mb)} MB${tightest ? `; tightest limit: ${tightest.what} of ${tightest.limit}` : ""}`
    : "no worker"); // why, and what to do, is a finding
}

/** How many slots are wanted, where somebody decides it. */
function wanted({ scaling }) {
  by("wanted").hidden = !scaling;
  if (scaling) text(by("wanted"), `${counted(scaling.slots, "slot")} wanted, ${count(scaling.there)} there: ${scaling.reason}`);
}

/** Each broker, where there are several. */
function brokers({ brokers: rows }) {
  by("brokers").hidden = !rows.length;
  text(by("brokers"), rows.map((one) => one.away
    ? `broker ${one.name} does not answer: its ${counted(one.pools.length, "pool")} wait`
    : `${counted(one.waiting, "task")} of ${counted(one.pools.length, "pool")} wait at ${one.name}${one.elsewhere ? `, ${count(one.elsewhere)} of them of pools that have another broker now` : ""}`).join("; "));
}

/** A series whose last value is the one that stands beside it. */
const upTo = (values, now) => [...values.slice(0, -1), now];

function cores(percents) {
  const said = decimal(percents / 100);
  return `${said} core${said === "1" ? "" : "s"}`;
}

function tightness(limit) {
  const requests = limit.rpm ? limit.used_rpm / limit.rpm : 0;
  const tokens = limit.tpm ? limit.used_tpm / limit.tpm : 0;
  return { limit: limit.limit, share: Math.max(requests, tokens), what: limit.tpm && tokens >= requests ? "tokens" : "requests" };
}

function matrix(errors, open) {
  const place = by("matrix");
  const all = place.dataset.all === "yes";
  const room = Math.max(2, Math.floor((widthOf(place) - 190) / 96)); // columns that fit: what is too much becomes one of "others"
  const many = errors.apis.length > room;
  const fit = (numbers) => (many ? [...numbers.slice(0, room - 1), sum(numbers.slice(room - 1))] : numbers);
  const apis = many ? [...errors.apis.slice(0, room - 1), `${errors.apis.length - room + 1} others`] : errors.apis;
  const key = JSON.stringify([apis, errors.rows, errors.api_totals, errors.types, all]);
  text(by("matrix-note"), errors.failures ? `${counted(errors.failures, "failed task")} since ${clock(errors.since)}` : "last hour");
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  const focused = place.contains(document.activeElement) ? document.activeElement.textContent : null;
  by("types").replaceChildren(...Object.entries(errors.types).map(([type, n]) => h("span", { class: "chip" }, type, " ", h("b", {}, count(n)))));
  if (!errors.rows.length) {
    place.replaceChildren(h("p", { class: "empty" }, "No task has failed in this hour."));
    return;
  }
  const most = Math.max(6, ...errors.rows.flatMap((row) => fit(row.counts))); // one failure is not yet the darkest colour
  const cell = (n) => h("td", { class: `hot-${n ? Math.max(1, Math.ceil((n / most) * 6)) : 0}` }, n ? count(n) : "·");
  const rows = errors.rows.slice(0, all ? errors.rows.length : MATRIX_ROWS);
  const more = errors.rows.length - rows.length;
  place.replaceChildren(
    h("table", { class: "matrix" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "bot"), ...apis.map((api) => h("th", { scope: "col", title: named(api, "API") }, named(api, "API"))), h("th", { scope: "col" }, "all"))),
      h("tbody", {}, ...rows.map((row) => h("tr", {},
        h("th", { scope: "row" }, row.bot === "-" ? named(row.bot, "bot") : h("button", { class: "link", type: "button", onclick: () => open(row.bot) }, row.bot)),
        ...fit(row.counts).map(cell), h("td", { class: "sum" }, count(row.total))))),
      h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "all bots"), ...fit(errors.api_totals).map((n) => h("td", { class: "sum" }, count(n))), h("td", { class: "sum" }, count(errors.failures))))),
    ...(more > 0 ? [h("button", { class: "link", type: "button", onclick: () => ((place.dataset.all = "yes"), matrix(errors, open)) }, `${counted(more + errors.rows_left_out, "more bot")}`)] : []),
  );
  if (focused) [...place.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

function tools(all) {
  keyed(by("tool-errors"), all, (one) => one.tool, () => h("li", { class: "note" }), (node, one) => {
    const types = Object.entries(one.types).map(([type, n]) => `${type} ${count(n)}`).join(", ");
    text(node, `${one.tool}: ${counted(one.failed, "request")} failed since counting began: ${types}`);
  });
}

function pools(view, out, act, mayAct) {
  const { pools: all, waits, at, diagnoses } = view;
  const reasons = new Map(all.map((pool) => [pool.pool, []]));
  for (const wait of waits) reasons.get(wait.pool)?.push(wait);
  const most = Math.max(1, ...all.map((pool) => pool.waiting));
  keyed(by("pools"), all, (pool) => pool.pool, (pool) => {
    const button = h("button", { type: "button", class: "quiet pause" });
    const more = h("button", { type: "button", class: "quiet", "aria-label": `Pause ${pool.pool} in part or for a time`, title: "in part, or for a time" }, "…");
    const name = h("div", { class: "line" }, h("b", {}, pool.pool), h("span", { class: "muted cut", title: pool.api }, pool.api), pool.simulated ? h("span", { class: "pill simulated" }, "simulated") : null, h("span", { class: "pill end gate" }), button, more);
    return h("li", {}, name, h("div", { class: "backlog" }), h("p", { class: "figures" }), h("ul", { class: "reasons" }));
  }, (node, pool) => {
    const [head, backlog, figures, why] = node.children;
    const mine = reasons.get(pool.pool);
    keyed(why, mine, (wait) => `${wait.cause} ${wait.about}`, () => h("li", {}), (line, wait) => {
      const tasks = wait.tasks || wait.in_slots;
      const behind = tasks ? `${counted(tasks, "task")}${wait.tasks ? "" : " in hand"} ${tasks === 1 ? "waits" : "wait"}: ` : "";
      const isPaused = wait.cause === "operator" && wait.told === "closed"; // wholly: there is no more to say
      const isTold = isPaused || (wait.told && diagnoses.some((one) => one.sentence.includes(wait.told.slice(0, TOLD_CHARS))));
      text(line, `${behind}${isTold ? wait.line.replace(` (${wait.told})`, "") : wait.line}${until(wait, at)}`);
      attribute(line, "class", wait.is_lasting ? "lasting" : null);
      attribute(line, "title", wait.advice || null);
    });
    const gate = head.querySelector(".gate");
    const open = pool.gate_left_s === null ? "" : `, ${left(pool.gate_left_s)} left`;
    const held = mine.find((wait) => wait.cause !== "time");
    const word = gateOf(pool, held?.about.startsWith("tools/") ? `tool ${held.about.split("/")[1]}` : held?.cause, view);
    text(gate, pool.is_open ? word : `${word}${open}`);
    attribute(gate, "class", `pill end gate ${word === "open" ? "good" : "warn"}`);
    const button = head.querySelector(".pause");
    const more = head.lastElementChild;
    more.onclick = () => askPause([pool.pool], act);
    attribute(more, "disabled", mayAct ? null : "");
    text(button, pool.is_open ? "Pause" : "Resume");
    attribute(button, "aria-label", `${pool.is_open ? "Pause" : "Resume"} ${pool.pool}`);
    attribute(button, "disabled", mayAct ? null : "");
    attribute(button, "title", mayAct ? null : document.body.dataset.whyNot);
    button.onclick = () => act({ do: pool.is_open ? "pause" : "resume", pool: pool.pool }, button);
    attribute(backlog, "aria-label", `${count(pool.waiting)} waiting: ${PRIORITIES.map((name) => `${pool.backlog[name] ?? 0} ${name}`).join(", ")}`);
    attribute(backlog, "role", "img");
    keyed(backlog, PRIORITIES, (name) => name, (name) => h("i", { class: `p-${name}` }), (bar, name) => {
      const n = pool.backlog[name] ?? 0;
      bar.style.flexGrow = n / most;
      attribute(bar, "title", `${count(n)} ${name}`);
      attribute(bar, "hidden", n ? null : "");
    });
    const rest = backlog.querySelector(".rest") ?? backlog.appendChild(h("i", { class: "rest" }));
    rest.dataset.key = "rest";
    rest.style.flexGrow = 1 - pool.waiting / most;
    const waiting = pool.waiting ? `${PRIORITIES.filter((name) => pool.backlog[name]).map((name) => `${short(pool.backlog[name])} ${name}`).join(" ")}` : "";
    const facts = [
      ["waiting", short(pool.waiting), waiting],
      ["oldest", pool.oldest_s === null ? "–" : duration(pool.oldest_s)],
      ["in flight", pool.in_flight ? `${count(pool.in_flight)} on ${count(pool.busy_bots)} of ${counted(pool.bots, "bot")}` : `none, ${counted(pool.bots, "bot")}`, "tasks in hand; a bot may have several"],
      ["done/h", short(pool.completions)],
      ["failed", pool.completions ? percent(pool.failed / pool.completions) : "–"],
      ["p50 / p99", pool.durations.ran.p50 === null ? "–" : `${duration(pool.durations.ran.p50 / 1000)} / ${duration(pool.durations.ran.p99 / 1000)}`],
    ];
    if (pool.ladder?.rung != null) facts.push(["served by", servedBy(pool.ladder, at), shares(pool.ladder)]);
    if (pool.drain?.tasks && word === "no worker") facts.splice(2, 0, ["backlog", "stands still", "no live worker serves this pool"]);
    else if (pool.drain?.tasks) facts.splice(2, 0, [/^\d/.test(pool.drain.short) ? "gone in" : "backlog", pool.drain.short, pool.drain.line]);
    if (pool.parked) facts.push(["parked", short(pool.parked), pool.next_opens_s === null ? null : `the first opens in ${left(pool.next_opens_s)}`]);
    const missing = out.get(pool.pool);
    if (missing) facts.push(["quarantined", missing < pool.bots ? count(missing) : "all bots: tasks wait"]);
    keyed(figures, facts, ([name]) => name, ([name]) => h("span", {}, `${name} `, h("b")), (span, [, value, hint]) => {
      text(span.lastElementChild, value);
      attribute(span, "title", hint || null);
    });
  });
  if (!by("priorities").firstChild) by("priorities").append(...PRIORITIES.map((name) => h("span", { class: "swatch" }, h("i", { class: `dot p-${name}` }), name)));
}

const nameOf = (rung) => (rung ? `fallback ${rung}` : "own");

/** Which rung of its ladder serves a pool, and for how long; a pool that has rested for a minute: who served it last. */
function servedBy({ rung, since, last_at, apis }, at) {
  const who = rung ? `${nameOf(rung)} (${apis[rung]})` : nameOf(rung);
  if (at - last_at > 60) return `${who}, ${ago(last_at, at)}`;
  return rung ? `${who}, ${duration(at - since)}` : who;
}

/** Which share each rung had of the last hour's answers. */
function shares({ served }) {
  const total = sum(served);
  return served.map((n, rung) => [n, rung]).filter(([n]) => n).map(([n, rung]) => `${nameOf(rung)} ${percent(n / total)}`).join(", ");
}

const TRIED = ["retry", "outage", "key", "credit", "configuration", "document"]; // their time is that of the next try

/** Until when a pool's tasks wait, or when it is tried again, in words (`obstacles.py`); empty: nobody knows. */
function until(wait, at) {
  if (wait.opens_at === null) return "";
  const left_s = wait.opens_at - at;
  if (wait.cause === "limit") return left_s > 0 ? `, the next in ${left(left_s)}` : "";
  const [day, time] = new Date(wait.opens_at * 1000).toISOString().split("T");
  const isToday = day === new Date(at * 1000).toISOString().slice(0, 10);
  if (left_s > 0) return `, ${TRIED.includes(wait.cause) ? "tried again at" : "until"} ${isToday ? "" : `${day} `}${time.slice(0, left_s < 120 ? 8 : 5)} UTC, in ${left(left_s)}`;
  return wait.probe_every_s ? `, one is tried every ${duration(wait.probe_every_s)}` : ", they go on now";
}

function limits({ limits: all, at }) {
  keyed(by("limits"), all, (limit) => limit.limit, (limit) =>
    h("li", {}, h("div", { class: "line" }, h("b", { class: "cut", title: limit.limit }, limit.limit), h("span", { class: "pill end", hidden: true })),
      h("div", { class: "use" }, h("span", {}, "requests"), h("div", { class: "meter" }), h("b")),
      h("div", { class: "use" }, h("span", {}, "tokens"), h("div", { class: "meter" }), h("b")),
      h("p", { class: "figures" })),
  (node, limit) => {
    const [head, requests, tokens, figures] = node.children;
    const pill = head.lastElementChild;
    const broken = limit.breaker === "closed" ? "" : `breaker ${limit.breaker}`;
    pill.hidden = !(broken || limit.held_s > 0 || limit.is_changed);
    text(pill, broken ? broken : limit.held_s > 0 ? `held ${left(limit.held_s)} by a 429` : "set live");
    attribute(pill, "class", `pill end ${limit.breaker === "open" || limit.held_s > 0 ? "bad" : "warn"}`);
    use(requests, limit.used_rpm, limit.rpm);
    use(tokens, limit.used_tpm, limit.tpm);
    tokens.hidden = limit.limit.startsWith("tools/"); // an API that has no tokens
    const facts = [["calls waiting", count(limit.waiting)], ["next grant", nextGrant(limit)],
      ["429s in all", limit.refused ? `${short(limit.refused)}, last ${ago(limit.refused_at, at)}` : "none"]];
    if (limit.in_flight || limit.most_in_flight) facts.splice(1, 0, ["in flight", inFlight(limit)]);
    for (const long of limit.long) facts.push([long.label, long.used === null ? `of ${short(long.limit)}` : `${count(long.used)} of ${short(long.limit)}`]);
    if (limit.budgets.length) facts.push(["day", limit.budgets.join("; ")]);
    if (limit.paced_rpm !== null) facts.push(["pace", `${limit.paced_rpm.toFixed(1)} calls a minute`]);
    keyed(figures, facts, ([name]) => name, ([name]) => h("span", {}, `${name} `, h("b")), (span, [, value]) => text(span.lastElementChild, value));
  });
}

/** When the next call may go: not before what stops all of them ends. */
function nextGrant({ breaker, next_grant_s, usd_per_day, used_usd, requests_per_day, used_requests }) {
  if (breaker === "open") return "when a probe does well";
  if ((usd_per_day && used_usd >= usd_per_day) || (requests_per_day && used_requests >= requests_per_day)) return "with the new day";
  return next_grant_s > 0 ? `in ${left(next_grant_s)}` : "now";
}

/** Calls under way of those allowed; more than that: the limit was lowered while they ran. */
function inFlight({ in_flight: now, most_in_flight: most, in_flight_is_learnt: isLearnt }) {
  if (!most) return count(now);
  return `${count(now)}${now > most ? ", from now on at most" : " of"} ${count(most)}${isLearnt ? " (learnt)" : ""}`;
}

function use(node, used, allowed) {
  meter(node.children[1], used, allowed);
  text(node.children[2], allowed ? `${short(Math.round(used))} of ${short(allowed)}` : `${short(Math.round(used))}, no limit`);
}

function cost({ cost: money, budgets, hours, totals, marks }) {
  text(by("cost-hour"), dollars(money.hour_usd_micros));
  text(by("cost-day"), dollars(money.day_usd_micros));
  const level = money.budget_usd_micros_per_hour ? { value: money.budget_usd_micros_per_hour } : null;
  bars(by("cost-hours"), hours.at, [{ name: "spent", class: "money", values: hours.cost_usd_micros }], { height: 60, line: level, show: dollars, marks });
  const each = totals.completions ? dollars((totals.cost_usd_micros / totals.completions) * 1000) : "–";
  const [tight, ...others] = money.budgets;
  const budget = tight ? `${percent(tight.share)} of today's ${dollars(tight.usd_micros_per_day)} of ${tight.limit}${others.length ? `, the most used of ${count(money.budgets.length)} budgets` : ""}${level ? "; dashed: an even hour" : ""}` : budgets.length ? "budgets have a panel of their own" : "no budget set (budgets.fleet)";
  const cached = totals.cached_tokens ? `, ${percent(totals.cached_tokens / totals.input_tokens)} of the input cached` : "";
  const idle = money.compute ? ` · last day ${money.compute.line}` : "";
  text(by("cost-note"), `${budget} · in all ${dollars(money.total_usd_micros)}, ${each} per 1,000 tasks${cached}${idle}`);
  const most = Math.max(1, ...money.pools.map((pool) => pool.day_usd_micros));
  keyed(by("cost-pools"), money.pools, (pool) => pool.pool, (pool) => h("li", { class: "use" }, h("span", { class: "cut" }, pool.pool), h("div", { class: "meter" }), h("b")), (node, pool) => {
    meter(node.children[1], pool.day_usd_micros, most);
    attribute(node.children[1].firstChild.firstChild, "class", "fine");
    text(node.children[2], `${dollars(pool.hour_usd_micros)}/h, ${dollars(pool.day_usd_micros)} today`);
  });
}

function events({ events: all, at }, open) {
  const place = by("events");
  if (!all.length && !place.firstChild) place.append(h("li", { class: "empty", "data-key": "none" }, "Nothing has happened yet."));
  if (!all.length) return;
  keyed(place, all.slice(0, EVENT_ROWS), (event) => event.id, (event) => {
    const { bot, task } = event.fields;
    const mark = { info: "i", warning: "!", error: "×" }[event.level] ?? "i";
    return h("li", { class: event.level }, h("i", { class: "mark", title: event.level }, mark), h("span", {}, h("b", {}, event.name.replaceAll("_", " ")), " ",
      bot ? h("button", { class: "link", type: "button", onclick: () => open(bot) }, bot) : null, bot ? " " : null, task ? taskLink(task) : null, task ? " " : null, ...spoken(event.said)), h("time", { title: dayAndTime(event.at) }));
  }, (node, event) => text(node.lastElementChild, ago(event.at, at)));
}
