// Small tools to draw with: elements, numbers, keyed lists, charts. Text only ever becomes text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

/** Make an element: h("p", {class: "note", onclick: f}, "text", child, ...). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c.nodeType ? c : String(c))));
  return node;
}

/** Set a node's text, without touching it when it is the same. */
export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set or remove an attribute, without touching it when it is the same. */
export function attribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const sizes = new WeakMap();
const watcher = new ResizeObserver((all) => all.forEach(({ target, contentRect, borderBoxSize }) => sizes.set(target, [contentRect.width, borderBoxSize[0].blockSize])));

/** Inner width and outer height of a node as it was last laid out: asking the node itself would lay out all that was just written. */
function sizeOf(node) {
  if (!sizes.has(node)) watcher.observe(node, { box: "border-box" });
  if (!sizes.get(node)?.[0]) sizes.set(node, [node.clientWidth, node.offsetHeight]);
  return sizes.get(node);
}

export const widthOf = (node) => sizeOf(node)[0];
export const heightOf = (node) => sizeOf(node)[1];

/** Make the children of `parent` those of `items`, keeping nodes (and focus) of the same key. */
export function keyed(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = old.get(key);
    old.delete(key);
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const node of old.values()) node.remove();
}

// Made once: `toLocaleString` makes one at each call, and took 80 of the 110 ms of an update of the table.
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const CENTS = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const DIGITS = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
// Of UTC, as findings, commands, logs and alerts have it: a page with two clocks is misread at night.
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZone: "UTC" });

export const count = (n) => WHOLE.format(n);

/** A count with its noun: 1 failure, 2 failures. */
export const counted = (n, noun, show = count) => `${show(n)} ${noun}${n === 1 ? "" : "s"}`;

/** A pool, bot or API as people read it, also where a task has none. */
export const named = (name, noun) => (!name || name === "-" ? `no ${noun}` : name);

/** 1,234 stays; 12,345 is 12.3k; 1,234,567 is 1.23M. */
export function short(n) {
  if (Math.abs(n) < 10000) return WHOLE.format(n);
  const [unit, size] = Math.abs(n) < 1e6 ? ["k", 1e3] : Math.abs(n) < 1e9 ? ["M", 1e6] : ["G", 1e9];
  const value = n / size;
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2) + unit;
}

/** A rate or a mean: few digits, no needless zeros. */
export const decimal = (n) => (n >= 100 ? WHOLE.format(n) : String(Number(n.toFixed(n >= 10 ? 1 : 2))));

export const percent = (share) => (share === 0 ? "0%" : share < 0.001 ? "<0.1%" : `${Number((share * 100).toFixed(share < 0.1 ? 1 : 0))}%`);

export function dollars(micros) {
  const usd = micros / 1e6;
  if (usd === 0) return "$0";
  if (usd < 0.0001) return "<$0.0001";
  const spelled = (usd >= 100 ? WHOLE : usd >= 1 ? CENTS : DIGITS).format(usd);
  return `$${/^0\.\d$/.test(spelled) ? `${spelled}0` : spelled}`; // $0.50, not $0.5
}

/** A length of time as people say it, as everywhere in Fleet (`fleet/quoting.py`). */
export function duration(seconds) {
  if (seconds < 1) return `${Math.round(Math.max(0, seconds) * 1000)} ms`;
  for (const [most, size, unit] of [[120, 1, "s"], [7200, 60, "min"], [172800, 3600, "h"]]) {
    const n = seconds / size;
    if (seconds < most) return `${n < 10 && unit !== "min" ? Number(n.toFixed(1)) : Math.round(n)} ${unit}`;
  }
  return `${Math.round(seconds / 86400)} days`;
}

/** How long until something: parts of a second only flicker. */
export const left = (seconds) => (seconds < 1 ? "a moment" : duration(seconds));

export const ago = (at, now) => (at ? `${duration(Math.max(0, now - at)).replace(/^\d+ ms$/, "0 s")} ago` : "never");

/** A time of day in a list whose head says UTC. */
export const timeOfDay = (at) => CLOCK.format(at * 1000);

/** A time of day in a sentence. */
export const clock = (at) => `${timeOfDay(at)} UTC`;

/** Day and time, for who asks for all of it. */
export const dayAndTime = (at) => `${new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;

const minute = (at) => timeOfDay(at).slice(0, 5);

/** Kinds of marks, the one that is drawn when several are at one place first. */
const MARKS = ["outage", "429", "worker", "quarantine", "action", "recovery"];

/** A time on a chart: an hour and minute, of a day's chart the hour alone. */
const timeOf = (at) => (at.length > 1 && at[1] - at[0] > 60 ? (when) => `${minute(when)} UTC, an hour` : (when) => `${minute(when)} UTC`);

/** The marks of each place of a chart: what happened in its minute or hour. */
function marked(at, marks) {
  const step = at.length > 1 ? at[1] - at[0] : 60;
  const found = new Map();
  for (const mark of marks) {
    const i = Math.floor((mark.at - at[0]) / step);
    if (i >= 0 && i < at.length) found.set(i, [...(found.get(i) ?? []), mark]);
  }
  return found;
}

/** Lines through a chart where something happened, one a place: dashed, as no bar is, in the colour of the worst. */
function drawMarks(picture, found, height, xAt) {
  for (const [i, here] of found) {
    const kind = MARKS.find((one) => here.some((mark) => mark.kind === one)) ?? here[0].kind;
    picture.append(svg("path", { class: `mark-line ${kind}`, d: `M${xAt(i)} 0V${height}` }));
  }
}

/** What the lines of a chart stand for, the worst first. */
const kindsOf = (found) => MARKS.filter((kind) => [...found.values()].flat().some((mark) => mark.kind === kind));

const told = (here = []) => here.map((mark) => `${mark.words}${mark.count > 1 ? ` and ${count(mark.count - 1)} more` : ""}`);

/**
 * Draw bars, stacked, one per minute or hour; the last one is still growing and drawn paler.
 * `series` is [{name, class, values}], from the bottom up; `line` is a level, e.g. a budget; `show` spells a value.
 */
export function bars(place, at, series, { height = 44, line = null, show = count, marks = [] } = {}) {
  const n = at.length;
  let most = line ? line.value : 0;
  for (let i = 0; i < n; i++) most = Math.max(most, series.reduce((sum, one) => sum + one.values[i], 0));
  const scale = most ? (height - 2) / most : 0;
  const found = marked(at, marks);
  const key = JSON.stringify([at[0], series.map((one) => one.values), line, [...found]]);
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  const width = n * 5;
  const paths = series.map(() => "");
  for (let i = 0; i < n; i++) {
    let y = height;
    series.forEach((one, s) => {
      if (!one.values[i]) return;
      const tall = Math.max(1, one.values[i] * scale);
      paths[s] += `M${i * 5} ${y}v${-tall}h4v${tall}z`;
      y -= tall;
    });
  }
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(svg("path", { class: "base", d: `M0 ${height - 0.5}H${width}` }));
  series.forEach((one, s) => picture.append(svg("path", { class: one.class, d: paths[s] })));
  drawMarks(picture, found, height, (i) => i * 5 + 2);
  if (line) picture.append(svg("path", { class: "level", d: `M0 ${height - line.value * scale}H${width}` }));
  place.replaceChildren(picture, h("span", { class: "peak" }, most ? `${show(most)} max` : ""), h("span", { class: "axis", "aria-hidden": "true" }, h("span", {}, timeOf(at)(at[0]).replace(/, .*/, "")), found.size ? h("span", { class: "cut" }, `┆ ${kindsOf(found).join(", ")}`) : null, h("span", {}, "now")));
  attribute(place, "role", "img");
  const last = series.map((one) => `${one.name} ${show(one.values[n - 1] ?? 0)}`).join(", ");
  const happened = [...found.values()].flatMap(told);
  attribute(place, "aria-label", `${n} bars up to now; most ${show(most)}; now ${last}${happened.length ? `; ${happened.slice(-5).join(", ")}` : ""}`);
  place.tipAt = (share) => {
    const i = Math.min(n - 1, Math.max(0, Math.floor(share * n)));
    return [timeOf(at)(at[i]), ...series.map((one) => `${one.name} ${show(one.values[i])}`), ...told(found.get(i))].join(" · ");
  };
}

/** Draw a line over a window. `most` fixes the top, e.g. a limit. */
export function line(place, at, values, { most = 0, show = decimal, name = "", marks = [] } = {}) {
  const height = 26;
  const top = Math.max(most, ...values, 1e-9);
  const found = marked(at, marks);
  const key = JSON.stringify([at[0], values, most, [...found]]);
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  const points = values.map((value, i) => `${i * 5} ${(height - 1 - (value / top) * (height - 3)).toFixed(1)}`);
  const width = Math.max(1, values.length - 1) * 5;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(
    svg("path", { class: "area", d: `M0 ${height}L${points.join("L")}L${width} ${height}z` }),
    svg("path", { class: "stroke", d: `M${points.join("L")}` }),
  );
  drawMarks(picture, found, height, (i) => i * 5);
  place.replaceChildren(picture, h("span", { class: "peak" }, most ? `${show(most)} allowed` : `${show(Math.max(...values, 0))} max`));
  attribute(place, "role", "img");
  attribute(place, "aria-label", `${name} over time: now ${show(values[values.length - 1] ?? 0)}, most ${show(Math.max(...values, 0))}`);
  place.tipAt = (share) => {
    const i = Math.min(values.length - 1, Math.max(0, Math.round(share * (values.length - 1))));
    return [timeOf(at)(at[i]), `${name} ${show(values[i])}`, ...told(found.get(i))].join(" · ");
  };
}

/** A meter: how much of what is allowed is used. Beyond 90% it says so by its colour and by its hatching. */
export function meter(node, used, allowed) {
  const share = allowed ? Math.min(1, used / allowed) : 0;
  if (!node.firstChild) node.append(svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { height: 6, rx: 0 })));
  const bar = node.firstChild.firstChild;
  attribute(bar, "width", (share * 100).toFixed(1));
  attribute(bar, "class", share >= 0.98 ? "full" : share >= 0.9 ? "near" : "fine");
}
