// All bots as small cells on a canvas: 100 get large ones with their numbers, 10,000 still fit on one screen.

import { COLOURS, SORTS, against, isOut, sorted } from "./colours.js";
import { attribute, by, count, counted, decimal, duration, h, short, text, widthOf } from "./draw.js";
import { STATES } from "./store.js";

const STEPS = 6;
const MAX_HEIGHT = 430;
const LARGEST = 40;
const COMFORTABLE = 34;
const READABLE = 26; // from here on a cell shows its bot's number
const SMALLEST = 5;
const CROSSED = 8; // a cross would hide a smaller cell whose colour says that it is out
const [ALIKE, CHOSEN] = [1 << 7, 1 << 8]; // in the number of how a cell looks
const GLYPHS = { quarantined: "×", probation: "?", leaving: "–" };

export class HeatMap {
  constructor(open) {
    this.box = by("heat");
    this.canvas = by("cells");
    this.pen = this.canvas.getContext("2d");
    this.open = open;
    this.colour = "health";
    this.sort = "pool";
    this.isUp = true;
    this.filter = { pool: "", state: "", find: "" };
    this.order = [];
    this.at = -1; // place of the focused cell in the order
    this.hovered = false;
    this.bots = null;
    this.drawn = null; // what the canvas shows
    this.selected = new Set();
    this.isChoosing = false;
    this.#listen();
  }

  /** Show these bots; `now` is the time of the figures. */
  show(bots, now) {
    this.bots = bots;
    this.now = now;
    if (!this.hovered || this.isPlain || this.order.length === 0) this.arrange();
    else this.paint();
  }

  /** True while bots are in the order of their pools and numbers. */
  get isPlain() {
    return this.sort === "pool" && this.isUp;
  }

  /** Sort by a column; the one it is sorted by already is turned round. */
  sortBy(key) {
    this.isUp = key === this.sort ? !this.isUp : Boolean(SORTS[key].up);
    this.sort = key;
  }

  /** Filter, sort and draw. The focused bot keeps the focus wherever it goes. */
  arrange() {
    const { bots } = this;
    if (!bots) return;
    const focused = this.order[this.at];
    const { pool, find } = this.filter;
    const state = this.filter.state === "" ? -1 : STATES.indexOf(this.filter.state);
    const wanted = find.trim().toLowerCase();
    const order = [];
    for (let i = 0; i < bots.size; i++) {
      if (pool && bots.pools[i] !== pool) continue;
      if (state >= 0 && bots.columns.state[i] !== state) continue;
      if (wanted && !bots.names[i].toLowerCase().includes(wanted)) continue;
      order.push(i);
    }
    const wantedOrder = this.isPlain ? order : sorted(order, this.sort, this.isUp, bots, this.now);
    if (!same(this.order, wantedOrder)) this.order = wantedOrder;
    this.at = focused === undefined ? -1 : order.indexOf(focused);
    this.paint();
  }

  #measure() {
    const width = Math.max(120, widthOf(this.box));
    const groups = this.#groups();
    const rowsAt = (cell) => groups.reduce((sum, group) => sum + Math.ceil(group.length / Math.floor(width / cell)), 0);
    const head = groups.length > 1 ? 18 : 0;
    // Small fleets: as large as lets the longest pool lie in one row, if its numbers stay readable.
    const whole = Math.floor(width / Math.max(1, ...groups.map((group) => group.length)));
    let cell = whole >= READABLE ? Math.min(LARGEST, whole) : COMFORTABLE;
    while (cell > SMALLEST && rowsAt(cell) * cell + groups.length * head > MAX_HEIGHT) cell -= cell > 14 ? 2 : 1;
    const across = Math.floor(width / cell);
    let y = 0;
    for (const group of groups) {
      group.y = y + head;
      y = group.y + Math.ceil(group.length / across) * cell;
    }
    this.origins = groups;
    return { width, cell, head, across, height: Math.max(24, y) };
  }

  /** Cells of one pool lie together, under its name, as long as the order is that of the pools: [{first, length}]. */
  #groups() {
    const { order, bots } = this;
    const all = [{ first: 0, length: order.length }];
    if (!this.isPlain) return all;
    const groups = [];
    for (let place = 0; place < order.length; place++) {
      if (place && bots.poolAt[order[place]] === bots.poolAt[order[place - 1]]) groups[groups.length - 1].length++;
      else groups.push({ first: place, length: 1 });
    }
    return groups.length > 12 || !groups.length ? all : groups;
  }

  /** Paint all cells when their places or colours have changed, else only those that look different. */
  paint() {
    if (this.box.hidden) return; // the table is shown
    const style = getComputedStyle(this.box);
    const inked = new Map(); // a third of 10,000 bots may be marked: each colour is looked up once
    const ink = (name) => inked.get(name) ?? inked.set(name, style.getPropertyValue(name).trim()).get(name);
    const how = COLOURS[this.colour];
    const { bots, order } = this;
    const layout = (this.layout = this.#measure());
    const palette = how.hue === "state" ? STATES.map((name) => ink(`--state-${name}`)) : Array.from({ length: how.names?.length ?? STEPS + 1 }, (_, k) => ink(`--${how.hue}-${k}`));
    const tops = this.#tops(how);
    this.#legend(how, palette, tops);
    const gone = palette.push(ink("--out")) - 1;
    const looks = this.#looks(how, tops, gone);
    const ratio = window.devicePixelRatio || 1;
    const isRinged = this.at >= 0 && (document.activeElement === this.box || this.hovered);
    const key = [layout.width, layout.cell, layout.head, layout.height, this.isPlain, ratio, this.colour, ink("--card"), ...palette].join();
    const isWhole = isRinged || !Number.isInteger(ratio) || this.drawn?.key !== key || this.drawn.bots !== bots || this.drawn.order !== order;
    const { pen } = this;
    if (isWhole) {
      this.canvas.width = Math.round(layout.width * ratio);
      this.canvas.height = Math.round(layout.height * ratio);
      this.canvas.style.width = `${layout.width}px`;
      this.canvas.style.height = `${layout.height}px`;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      Object.assign(this.box.dataset, { cell: layout.cell, head: layout.head });
      this.#heads(ink);
    }
    const brush = { ink, palette, inks: palette.map(contrasting), isDark: how.out, isMixed: layout.cell >= READABLE && !layout.head && bots.pooled.length > 1 };
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = `500 ${Math.min(11, layout.cell / 2.6)}px system-ui, sans-serif`;
    const was = isWhole ? null : this.drawn.looks;
    for (const group of this.origins) {
      for (let k = 0, place = group.first; k < group.length; k++, place++) {
        if (was && was[place] === looks[place]) continue;
        const x = (k % layout.across) * layout.cell;
        const y = group.y + Math.floor(k / layout.across) * layout.cell;
        if (was) pen.clearRect(x, y, layout.cell, layout.cell);
        this.#cell(x, y, order[place], looks[place], brush);
      }
    }
    if (isRinged) this.#ring(ink);
    this.drawn = { key: isRinged ? null : key, bots, order, looks };
    const narrowed = order.length === bots.size ? "" : ` of ${count(bots.size)}`;
    text(by("bots-shown"), `${count(order.length)}${narrowed}`);
  }

  /** How each place looks, in one number: its colour, its bot's state, whether it is alike or chosen. */
  #looks(how, tops, gone) {
    const { bots, order, now, selected } = this;
    const { state, alike } = bots.columns;
    const looks = new Uint16Array(order.length);
    for (let place = 0; place < order.length; place++) {
      const i = order[place];
      const value = how.of(bots, i, now);
      const step = how.out && isOut(bots, i) ? gone : how.names ? value : value <= 0 ? 0 : Math.min(STEPS, 1 + Math.floor((value / tops[bots.poolAt[i]]) * (STEPS - 0.001)));
      looks[place] = step | (state[i] << 4) | (alike[i] ? ALIKE : 0) | (selected.size && selected.has(bots.names[i]) ? CHOSEN : 0);
    }
    return looks;
  }

  /** Names of the pools above their cells; a word where there are none. */
  #heads(ink) {
    const { pen, bots, order, layout } = this;
    pen.fillStyle = ink("--soft");
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.font = "600 11px system-ui, sans-serif";
    if (layout.head) for (const { first, length, y } of this.origins) pen.fillText(`${bots.pools[order[first]]}  ${count(length)}`, 0, y - layout.head + 8);
    pen.font = "13px system-ui, sans-serif";
    if (!order.length) pen.fillText(bots.size ? "No bot fits the filter." : "No bots yet: start a worker, `celery -A fleet worker`.", 0, 12);
  }

  #cell(x, y, i, look, { ink, palette, inks, isDark, isMixed }) {
    const { pen, bots } = this;
    const { cell } = this.layout;
    const size = cell - (cell >= 12 ? 2 : 1);
    const step = look & 15;
    pen.fillStyle = palette[step];
    if (cell >= READABLE) {
      pen.beginPath();
      pen.roundRect(x, y, size, size, 4);
      pen.fill();
      pen.fillStyle = inks[step];
      const number = bots.names[i].slice(bots.pools[i].length + 1) || bots.names[i];
      pen.fillText(number, x + size / 2, y + size / 2 + (isMixed ? 6 : 0.5));
      if (isMixed) pen.fillText(bots.pools[i].slice(0, 5), x + size / 2, y + size / 2 - 6, size - 2);
    } else pen.fillRect(x, y, size, size);
    if (look < 32) return; // idle or busy, and nothing else
    const state = (look >> 4) & 7;
    if (look & ALIKE) this.#mark(x, y, size, "alike", ink, isDark);
    if (state > 1) this.#mark(x, y, size, STATES[state], ink, isDark);
    if (look & CHOSEN) this.#choose(x, y, size, ink);
  }

  /** By pool, the value that colours its darkest cells: a pool of slow bots does not make those of all others pale. */
  #tops(how) {
    const { bots, now } = this;
    const of = Array.from({ length: Math.max(1, bots.pooled.length) }, () => []);
    if (how.names || how.most) return of.map(() => how.most ?? 1);
    const stride = Math.max(1, Math.floor(bots.size / 2000));
    for (let i = 0; i < bots.size; i += stride) of[bots.poolAt[i]].push(how.of(bots, i, now));
    return of.map((some) => {
      some.sort((a, b) => a - b);
      return Math.max(how.top ?? 1, some[Math.floor(some.length * 0.95)] ?? 0, (some[some.length - 1] ?? 0) / 4);
    });
  }

  /** Alike bots and those out of the order are marked in every colouring: it must not depend on seeing colours. */
  #mark(x, y, size, name, ink, isDark) {
    const { pen } = this;
    const isCross = name === "quarantined";
    pen.strokeStyle = ink(isCross && isDark ? "--card" : `--state-${name}`);
    pen.lineWidth = size > 16 ? 2.5 : 1.5;
    if (!(isCross && isDark)) pen.strokeRect(x + pen.lineWidth / 2, y + pen.lineWidth / 2, size - pen.lineWidth, size - pen.lineWidth);
    if (!isCross || (isDark && size < CROSSED)) return;
    const arm = this.layout.cell >= READABLE ? size / 4 : size / 2; // a number in the middle stays readable
    pen.beginPath();
    for (const [atX, atY, toX, toY] of [[0, 0, 1, 1], [size, 0, -1, 1], [0, size, 1, -1], [size, size, -1, -1]]) {
      pen.moveTo(x + atX, y + atY);
      pen.lineTo(x + atX + toX * arm, y + atY + toY * arm);
    }
    pen.stroke();
  }

  /** Chosen bots have a frame and a dot in the corner. */
  #choose(x, y, size, ink) {
    const { pen } = this;
    pen.strokeStyle = pen.fillStyle = ink("--ink");
    pen.lineWidth = size > 16 ? 3 : 2;
    pen.strokeRect(x + pen.lineWidth / 2, y + pen.lineWidth / 2, size - pen.lineWidth, size - pen.lineWidth);
    pen.fillRect(x, y, size / 4, size / 4);
  }

  #ring(ink) {
    const { x, y } = this.#spot(this.at);
    const size = this.layout.cell;
    this.pen.strokeStyle = ink("--ink");
    this.pen.lineWidth = 2;
    this.pen.strokeRect(x - 1, y - 1, size, size);
  }

  #spot(place) {
    const { cell, across } = this.layout;
    const group = this.origins.findLast((one) => one.first <= place);
    const k = place - group.first;
    return { x: (k % across) * cell, y: group.y + Math.floor(k / across) * cell };
  }

  #placeAt(x, y) {
    const { cell, across } = this.layout;
    for (const group of this.origins) {
      const row = Math.floor((y - group.y) / cell);
      const column = Math.floor(x / cell);
      const k = row * across + column;
      if (row >= 0 && column >= 0 && column < across && k < group.length && y < group.y + Math.ceil(group.length / across) * cell) return group.first + k;
    }
    return -1;
  }

  #legend(how, palette, tops) {
    const states = this.states();
    const alike = this.bots.columns.alike.reduce((sum, one) => sum + one, 0);
    const [least, most] = [Math.min(...tops), Math.max(...tops)];
    const key = [this.colour, palette.join(), least, most, states.join(), alike].join();
    const place = by("heat-legend");
    if (place.dataset.drawn === key) return;
    place.dataset.drawn = key;
    const swatch = (colour, ...words) => h("span", { class: "swatch" }, dot(colour), ...words);
    const parts = [];
    if (how.hue === "state") STATES.forEach((name, k) => parts.push(swatch(palette[k], `${name} ${count(states[k])}`)));
    else {
      parts.push(h("span", {}, how.label));
      if (how.names) how.names.forEach((name, k) => parts.push(swatch(palette[k], name)));
      else {
        const ramp = h("span", { class: "swatch" });
        palette.slice(1, STEPS + 1).forEach((colour) => ramp.append(dot(colour)));
        ramp.append(how.most ? `to ${how.show(most)}` : least === most ? `to ${how.show(most)} and more` : `to ${how.show(least)}–${how.show(most)} and more, by pool`);
        parts.push(swatch(palette[0], how.show(0)), ramp);
      }
      STATES.forEach((name, k) => k > 1 && states[k] && parts.push(h("span", { class: `pill state-${name}` }, `${GLYPHS[name]} ${name} ${count(states[k])}`)));
    }
    if (alike) parts.push(h("span", { class: "pill alike" }, `▢ alike ${count(alike)}`));
    place.replaceChildren(...parts);
  }

  states() {
    const counts = STATES.map(() => 0);
    for (const state of this.bots.columns.state) counts[state]++;
    return counts;
  }

  /** Spell a bot in one line, for the tooltip and for screen readers. */
  line(i) {
    const { columns, names } = this.bots;
    const failed = columns.failed[i] ? `, ${short(columns.failed[i])} failed` : "";
    const calls = columns.calls_failed[i] ? `, ${counted(columns.calls_failed[i], "failed call", short)}` : "";
    const mean = columns.mean_ms[i] ? `, ${duration(columns.mean_ms[i] / 1000)} a task` : "";
    const odd = against(this.bots, i, this.now);
    return `${names[i]}: ${STATES[columns.state[i]]}${odd ? ` (${odd})` : ""}, ${decimal(columns.per_hour[i])} in the last hour, ${short(columns.completions[i])} in all${failed}${calls}${mean}, ${short(columns.load[i])} in hand${this.selected.has(names[i]) ? ", chosen" : ""}`;
  }

  #focus(place) {
    if (!this.order.length) return;
    this.at = Math.max(0, Math.min(this.order.length - 1, place));
    text(by("bot-under"), this.line(this.order[this.at]));
    this.paint();
  }

  #listen() {
    const { box } = this;
    const tip = by("tip");
    box.addEventListener("pointermove", (event) => {
      if (!this.layout || event.pointerType === "touch") return;
      const edge = this.canvas.getBoundingClientRect();
      const place = this.#placeAt(event.clientX - edge.left, event.clientY - edge.top);
      this.hovered = place >= 0;
      tip.hidden = place < 0;
      box.style.cursor = place < 0 ? "default" : "pointer";
      if (place < 0) return;
      text(tip, this.line(this.order[place]));
      put(tip, event);
      if (place !== this.at) {
        this.at = place;
        this.paint();
      }
    });
    box.addEventListener("pointerleave", () => {
      this.hovered = false;
      tip.hidden = true;
      if (this.bots) this.arrange();
    });
    box.addEventListener("click", (event) => {
      if (!this.layout) return;
      const edge = this.canvas.getBoundingClientRect();
      const place = this.#placeAt(event.clientX - edge.left, event.clientY - edge.top);
      if (place < 0) return;
      this.at = place;
      this.open(this.bots.names[this.order[place]]);
    });
    box.addEventListener("focus", () => this.bots && this.#focus(Math.max(0, this.at)));
    box.addEventListener("blur", () => this.bots && this.paint());
    box.addEventListener("keydown", (event) => {
      if (!this.layout) return;
      const { across } = this.layout;
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, PageDown: across * 5, PageUp: -across * 5, Home: -Infinity, End: Infinity };
      if (event.key in steps) {
        this.#focus(this.at + steps[event.key]);
        event.preventDefault();
      } else if ((event.key === "Enter" || event.key === " ") && this.at >= 0) {
        this.open(this.bots.names[this.order[this.at]]);
        event.preventDefault();
      }
    });
    new ResizeObserver(() => this.bots && this.paint()).observe(box);
    new MutationObserver(() => this.bots && this.paint()).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  }
}

const same = (a, b) => a.length === b.length && a.every((one, k) => one === b[k]);

/** Put the tooltip beside the pointer, inside the window. */
export function put(tip, event) {
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(window.innerWidth - width - 8, event.clientX + 12))}px`;
  tip.style.top = `${event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
}

function dot(colour) {
  const node = h("i", { class: "dot" });
  if (colour) node.style.background = colour;
  else attribute(node, "class", "dot none");
  return node;
}

/** Black or white, whichever is read better on a #rrggbb. */
function contrasting(colour) {
  const [r, g, b] = [1, 3, 5].map((k) => (parseInt(colour.slice(k, k + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#10151b" : "#ffffff";
}
