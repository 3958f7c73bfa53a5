// Where cards stand: in one, two or three columns without holes, however many there are; long lists fold, none scrolls.

import { attribute, by, counted, h, heightOf, keyed, short, text } from "./draw.js";
import { gateOf } from "./store.js";

const THREE = matchMedia("(min-width: 1800px)");
const TWO = matchMedia("(min-width: 900px)");
const UNEVEN_PX = 160; // columns that differ by less stay as they are: cards that jump are worse
const ROW_PX = 16; // by so much each row of a column's lists may grow, so that all columns end at one line
const FOOT_PX = 24; // and by so much the foot of each card, for what is left then
const CALM_MS = 10000; // between two moves of cards
const GAP_PX = 13; // between two cards, .8rem
const MOST_SWAPS = 30;
const SUMMARY_ROWS = 6;

let board = null;
let cards = [];
let levelling = 0;
const given = new Map(); // card -> pixels by which each of its rows, and its foot, are taller than what stands in them, and its rows then
let movedAt = -Infinity;
let shownAs = "";
let isFresh = false; // columns or cards are others than at the last look, so heights were not those of now

/** Put every card into a column: once, when the window or the number of cards changes, and when columns grow uneven. */
export function arrange() {
  if (!board) build();
  folds();
  const present = cards.filter((card) => !card.hidden);
  const count = THREE.matches ? 3 : TWO.matches ? 2 : 1;
  let heights = heightsOf(present);
  const key = `${count} ${present.map((card) => card.getAttribute("aria-labelledby"))}`;
  const isNew = key !== shownAs;
  if (isNew || ((isFresh || !isTouched()) && isUneven(present, heights))) {
    move(placed(present, heights, count), count); // by what was known, maybe of columns of another width
    heights = heightsOf(present, true, (card) => card.offsetHeight); // laid out once for it, which is seldom
    move(placed(present, heights, count), count);
  }
  isFresh = isNew;
  shownAs = key;
  level(current(present), heights);
  cancelAnimationFrame(levelling); // what was just written is laid out in the next frame, and known in the one after it
  levelling = requestAnimationFrame(() => (levelling = requestAnimationFrame(() => level(current(present), heightsOf(present, true)))));
}

/** Heights of what stands in cards, as they were laid out last: with the rows of then, unless that was just now. */
const heightsOf = (present, isNow = false, measured = heightOf) => new Map(present.map((card) => {
  const { row, foot, rows } = given.get(card) ?? { row: 0, foot: 0, rows: 0 };
  return [card, measured(card) - foot - row * (isNow && row ? rowsOf(card) : rows)];
}));

/** Rows of a card's lists that are shown. */
function rowsOf(card) {
  const shown = (list) => (list.classList.contains("unfolded") ? list.children.length : Math.min(list.children.length, Number(list.dataset.most)));
  return [...card.querySelectorAll("[data-most]")].reduce((sum, list) => sum + shown(list), 0);
}

const isTouched = () => performance.now() - movedAt < CALM_MS || board.matches(":hover") || board.contains(document.activeElement);

function isUneven(present, heights) {
  const now = uneven(current(present), heights);
  return now >= UNEVEN_PX && now - uneven(placed(present, heights, Number(board.dataset.columns)), heights) >= UNEVEN_PX;
}

function move(wanted, count) {
  movedAt = performance.now();
  board.dataset.columns = count;
  wanted.forEach((own, i) => own.forEach((card, k) => board.columns[i].children[k] !== card && board.columns[i].insertBefore(card, board.columns[i].children[k] ?? null)));
}

/** Let each column end where the longest one ends: its rows stand a little further apart, and no card has a blank foot. */
function level(columns, heights) {
  const tall = lengths(columns, heights);
  const most = Math.max(...tall);
  const wanted = new Map(columns.slice(0, tall.length).flatMap((own, i) => spread(own, Math.round(most - tall[i]))));
  for (const card of cards) {
    const { row, foot, rows } = wanted.get(card) ?? { row: 0, foot: 0, rows: 0 };
    const before = given.get(card);
    given.set(card, { row, foot, rows });
    if (row !== (before?.row ?? 0)) card.style.setProperty("--row", `${row}px`);
    if (foot !== (before?.foot ?? 0)) card.style.setProperty("--foot", `${foot}px`);
  }
}

/** What each card of a column is given of so many pixels. */
function spread(own, more) {
  const rows = own.map(rowsOf);
  const all = rows.reduce((sum, n) => sum + n, 0);
  const row = all ? Math.min(ROW_PX, Math.floor(more / all)) : 0;
  let left = Math.min(more - row * all, FOOT_PX * own.length);
  return own.map((card, i) => {
    const foot = Math.ceil(left / (own.length - i));
    left -= foot;
    return [card, { row, foot, rows: rows[i] }];
  });
}

function build() {
  const map = by("heat").closest(".card");
  cards = [...by("main-content").querySelectorAll("section.card")].filter((card) => card !== map && !card.closest(".signals, .first, .found"));
  const column = () => h("div", { class: "column" });
  const columns = [column(), column(), column()];
  board = h("div", { class: "board" });
  map.before(board);
  board.append(h("div", { class: "broad" }, map, h("div", { class: "columns" }, columns[0], columns[1])), columns[2]);
  board.columns = columns;
  board.map = map;
  cards.forEach((card) => columns[0].append(card));
  for (const query of [TWO, THREE]) query.addEventListener("change", arrange);
}

/** The tallest card goes first, each to the column that is shortest so far; then cards change places while that helps. */
function placed(present, heights, count) {
  const tall = [0, 1, 2].slice(0, count).map((i) => above(i, count));
  const column = new Map();
  for (const card of [...present].sort((a, b) => heights.get(b) - heights.get(a))) {
    const i = tall.indexOf(Math.min(...tall));
    column.set(card, i);
    tall[i] += heights.get(card) + GAP_PX;
  }
  for (let k = 0; k < MOST_SWAPS && swapped(present, heights, column, tall); k++);
  return [0, 1, 2].map((i) => present.filter((card) => column.get(card) === i)); // in a column they keep their order
}

const current = (present) => board.columns.map((column) => present.filter((card) => card.parentElement === column));

/** Exchange two cards of different columns, or move one, if that makes the longest column of both shorter. */
function swapped(present, heights, column, tall) {
  const size = (card) => (card ? heights.get(card) + GAP_PX : 0);
  for (const one of present) {
    for (const other of [null, ...present]) {
      for (const j of other ? [column.get(other)] : tall.keys()) {
        const i = column.get(one);
        const less = size(one) - size(other);
        if (i === j || Math.max(tall[i] - less, tall[j] + less) >= Math.max(tall[i], tall[j]) - 1) continue;
        column.set(one, j);
        if (other) column.set(other, i);
        tall[i] -= less;
        tall[j] += less;
        return true;
      }
    }
  }
  return false;
}

/** What stands above a column: with three, the first two begin below the map. */
const above = (i, count) => (count === 3 && i < 2 ? heightOf(board.map) : 0);

function lengths(columns, heights) {
  const count = Number(board.dataset.columns);
  return columns.slice(0, count).map((own, i) => own.reduce((sum, card) => sum + heights.get(card) + GAP_PX, above(i, count)));
}

function uneven(columns, heights) {
  const tall = lengths(columns, heights);
  return Math.max(...tall) - Math.min(...tall);
}

/** Lists with `data-most` show so many entries, and a button for the rest. */
function folds() {
  for (const list of document.querySelectorAll("[data-most]")) {
    const more = list.children.length - Number(list.dataset.most);
    let button = list.nextElementSibling?.classList.contains("unfold") ? list.nextElementSibling : null;
    if (!button) {
      if (more <= 0) continue;
      button = h("button", { class: "quiet unfold", type: "button" });
      button.addEventListener("click", () => (list.classList.toggle("unfolded"), folds()));
      list.after(button);
    }
    const isOpen = list.classList.contains("unfolded");
    button.hidden = more <= 0;
    text(button, isOpen ? "Show fewer" : `Show ${more.toLocaleString("en-US")} more`);
    attribute(button, "aria-expanded", String(isOpen));
  }
}

/** One line a pool, below the findings on a phone: the cards with everything are far below there. */
export function poolSummary(view) {
  const { pools, waits } = view;
  const place = by("pool-summary");
  const reasons = new Map();
  for (const wait of waits) if (wait.cause !== "time" && !reasons.has(wait.pool)) reasons.set(wait.pool, wait.cause);
  const rank = (pool) => (pool.is_open ? 0 : 2) + (reasons.has(pool.pool) ? 1 : 0);
  const worst = [...pools].sort((a, b) => rank(b) - rank(a) || b.waiting - a.waiting).slice(0, SUMMARY_ROWS);
  keyed(place, [...worst, ...(pools.length > worst.length ? [null] : [])], (pool) => pool?.pool ?? "", () => h("li", {}, h("b", { class: "cut" }), h("span", { class: "muted" }), h("span", { class: "pill" })), (node, pool) => {
    const [name, figures, gate] = node.children;
    gate.hidden = !pool;
    if (!pool) return text(name, `and ${counted(pools.length - worst.length, "more pool")}`);
    text(name, pool.pool);
    text(figures, `${short(pool.waiting)} waiting, ${short(pool.in_flight)} in flight`);
    const why = reasons.get(pool.pool);
    text(gate, gateOf(pool, why, view));
    attribute(gate, "class", `pill ${gate.textContent === "open" ? "good" : "warn"}`);
  });
}

/** Until the first task was submitted there is nothing to see: say how to submit one. */
export function firstRun({ totals, pools }) {
  const card = by("first-run");
  const isFresh = !totals.completions && pools.every((pool) => !pool.waiting && !pool.in_flight && !pool.parked);
  card.hidden = !isFresh;
  const button = by("first-copy");
  if (button.onclick || !isFresh) return;
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(by("first-line").textContent);
      text(button, "Copied");
    } catch {
      getSelection().selectAllChildren(by("first-line")); // a page without a secure address may not write there
      text(button, "Selected: copy it");
    }
    setTimeout(() => text(button, "Copy"), 3000);
  };
}
