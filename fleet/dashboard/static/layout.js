// Where cards stand: in one, two or three columns without holes, however many there are; long lists fold, none scrolls.

import { attribute, by, counted, h, heightOf, keyed, short, text } from "./draw.js";
import { gateOf } from "./store.js";

const THREE = matchMedia("(min-width: 1800px)");
const TWO = matchMedia("(min-width: 900px)");
const UNEVEN_PX = 240; // columns that differ by less stay as they are: cards that jump are worse
const CALM_MS = 10000; // between two moves of cards
const SUMMARY_ROWS = 6;

let board = null;
let cards = [];
let movedAt = -Infinity;
let shownAs = "";

/** Put every card into a column: once, when the window or the number of cards changes, and when columns grow uneven. */
export function arrange() {
  if (!board) build();
  folds();
  const present = cards.filter((card) => !card.hidden);
  const count = THREE.matches ? 3 : TWO.matches ? 2 : 1;
  const key = `${count} ${present.map((card) => card.getAttribute("aria-labelledby"))}`;
  const isNew = key !== shownAs;
  if (!isNew && (performance.now() - movedAt < CALM_MS || board.matches(":hover") || board.contains(document.activeElement))) return;
  const heights = new Map(present.map((card) => [card, heightOf(card)]));
  const wanted = placed(present, heights, count);
  if (!isNew && uneven(current(present), heights) - uneven(wanted, heights) < UNEVEN_PX) return;
  shownAs = key;
  movedAt = performance.now();
  board.dataset.columns = count;
  wanted.forEach((own, i) => own.forEach((card, k) => board.columns[i].children[k] !== card && board.columns[i].insertBefore(card, board.columns[i].children[k] ?? null)));
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

/** The tallest card goes first, each to the column that is shortest so far; with three, the first two begin below the map. */
function placed(present, heights, count) {
  const tall = [0, 0, 0].map((_, i) => (count === 3 && i < 2 ? heightOf(board.map) : 0));
  const column = new Map();
  for (const card of [...present].sort((a, b) => heights.get(b) - heights.get(a))) {
    const i = tall.indexOf(Math.min(...tall.slice(0, count)));
    column.set(card, i);
    tall[i] += heights.get(card);
  }
  return [0, 1, 2].map((i) => present.filter((card) => column.get(card) === i)); // in a column they keep their order
}

const current = (present) => board.columns.map((column) => present.filter((card) => card.parentElement === column));

function uneven(columns, heights) {
  const count = Number(board.dataset.columns);
  const tall = columns.slice(0, count).map((own, i) => own.reduce((sum, card) => sum + heights.get(card), count === 3 && i < 2 ? heightOf(board.map) : 0));
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
