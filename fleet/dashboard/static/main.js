// The page's heart: asks for the fleet about once a second, hands it to the panels, and says when figures are old.

import { asks, newestAsks } from "./asks.js";
import { bill } from "./bill.js";
import { payouts } from "./payouts.js";
import { BotDialog } from "./bot.js";
import { budgets } from "./budgets.js";
import { contexts } from "./contexts.js";
import { keys } from "./keys.js";
import { diagnoses } from "./diagnosis.js";
import { deadLetters } from "./dead.js";
import { jobs } from "./jobs.js";
import { rollouts } from "./rollouts.js";
import { tenants } from "./tenants.js";
import { askedSchedules, schedules } from "./schedules.js";
import { attribute, by, clock, counted, duration, h, keyed, text } from "./draw.js";
import { COLOURS, SORTS } from "./colours.js";
import { diversity, worst } from "./health.js";
import { HeatMap, put } from "./heat.js";
import { arrange, firstRun, poolSummary } from "./layout.js";
import { panels } from "./panels.js";
import { TaskDialog } from "./story.js";
import { TaskFinder } from "./search.js";
import { Selection, undoButton } from "./safe.js";
import { STATES, Store, Unreachable } from "./store.js";
import { BotTable } from "./table.js";
import { windowButtons } from "./window.js";

const STALE_S = 5;
const SLOWEST_MS = 10000;
const REMEMBERED = "fleet-page";

const store = new Store(document.body.dataset.base, [newestAsks, askedSchedules]);
const dialog = new BotDialog(store, act);
const tasks = new TaskDialog(store, act);
const finder = new TaskFinder(store);
const open = (name) => dialog.open(name);
const pick = (name) => selection.takes(name) || open(name);
const heat = new HeatMap(pick);
const table = new BotTable(heat, pick, sortBy);
const selection = new Selection(heat, table, act);

let frozen = false;
let failures = 0;
let timer = 0;
let asking = Promise.resolve();
let lastReason = null;
let readAt = 0; // performance.now() at which the figures were read from Redis

/** Ask once more, after the question that is under way: changes must be applied in the order they were made. */
function tick() {
  asking = asking.then(ask);
  return asking;
}

async function ask() {
  clearTimeout(timer);
  let every = 1000;
  try {
    const about = await store.poll();
    every = about.every_ms;
    failures = 0;
    if (about.age_s !== null) readAt = performance.now() - about.age_s * 1000;
    document.body.dataset.mayAct = about.may_act ? "yes" : "no";
    document.body.dataset.whyNot = about.why_not ?? "";
    if (about.isNew) draw();
    trouble(about.trouble);
  } catch (error) {
    failures += 1;
    every = Math.min(SLOWEST_MS, 1000 * 2 ** failures);
    if (!(error instanceof Unreachable)) console.error(error);
    trouble(error.message);
  }
  if (!frozen && !document.hidden) timer = setTimeout(tick, every);
}

function draw() {
  const began = performance.now();
  const { view, bots } = store;
  heat.show(bots, view.at);
  table.draw();
  worst(view, open);
  diversity(view, { act, open, mayAct: document.body.dataset.mayAct === "yes" });
  selection.draw();
  panels(view, { out: bots.countByPool("quarantined"), act, open, mayAct: document.body.dataset.mayAct === "yes" });
  budgets(view);
  keys(view);
  contexts(view);
  diagnoses(view, { act, mayAct: document.body.dataset.mayAct === "yes" });
  bill(view);
  payouts(view);
  jobs(view, { store, act, mayAct: document.body.dataset.mayAct === "yes" });
  asks(view);
  rollouts(view);
  tenants(view);
  schedules(view);
  deadLetters(view, { store, act, mayAct: document.body.dataset.mayAct === "yes" });
  options(view);
  firstRun(view);
  poolSummary(view);
  arrange();
  text(by("summary"), `${counted(bots.size, "bot")} in ${counted(view.pools.length, "pool")}`);
  by("neighbour").hidden = !view.neighbour;
  text(by("neighbour"), view.neighbour);
  by("waits").hidden = !view.headline;
  text(by("waits"), view.headline);
  attribute(by("waits"), "class", `waits ${view.waits.some((wait) => wait.is_lasting && wait.tasks && view.headline.includes(wait.line)) ? "lasting" : ""}`);
  const took = performance.now() - began;
  document.body.dataset.drawnMs = took.toFixed(1);
  document.body.dataset.version = view.version;
  text(by("foot"), `Read from Redis at ${clock(view.at)}; drawn in ${Math.round(took)} ms. Keys: / find, t open a task, arrows and Enter on the map, u undoes what was just done, p freezes the page.`);
}

/** Say how old the figures are; never let old ones look like new ones. */
function trouble(reason) {
  lastReason = reason;
  const age = readAt ? (performance.now() - readAt) / 1000 : null;
  const isStale = age === null ? Boolean(reason) : age > STALE_S;
  const status = by("status");
  text(status, age === null ? (reason ? "no figures" : "connecting") : isStale ? `stale, ${duration(age)} old` : frozen ? "frozen" : "live");
  status.className = `pill ${isStale ? "bad" : frozen ? "warn" : age === null ? "" : "good live"}`;
  document.body.classList.toggle("stale", isStale);
  by("trouble").hidden = !(isStale && reason);
  if (isStale && reason) text(by("trouble"), age === null ? `${reason}. There are no figures yet.` : `${reason}. These are the figures of ${clock(Date.now() / 1000 - age)}.`);
}

/** Do it, and return the answer or null; quietly where more follows, of which the last one says what was done. */
async function act(action, button, isQuiet = false) {
  const hadFocus = document.activeElement === button; // a disabled button loses it
  button.disabled = true;
  try {
    const answer = await store.act(action);
    if (isQuiet) return answer;
    toast(answer.done, false, answer.undo);
    if (!frozen) await tick();
    return answer;
  } catch (error) {
    toast(error.message, true);
    return null;
  } finally {
    button.disabled = false;
    if (hadFocus && document.activeElement === document.body) (button.isConnected && button.offsetParent ? button : by("status")).focus();
  }
}

function toast(message, isBad = false, undo = []) {
  const line = by("toast");
  line.replaceChildren(message, ...undoButton(undo, act));
  line.className = `toast-line ${isBad ? "bad" : "good"}`;
  line.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (line.hidden = true), undo?.length ? 12000 : isBad ? 8000 : 4000);
}

// -- controls

function options(view) {
  keyed(by("pool"), ["", ...view.pools.map((pool) => pool.pool)], (name) => name, (name) => h("option", { value: name }, name || "all"), () => {});
  keyed(by("state"), ["", ...STATES], (name) => name, (name) => h("option", { value: name }, name || "all"), () => {});
}

/** Sort the bots by a column; asked for the same one again: the other way round. */
function sortBy(key) {
  heat.sortBy(key);
  redraw();
}

function redraw() {
  heat.colour = by("colour").value;
  by("sort").value = heat.sort;
  text(by("direction"), heat.isUp ? "↑" : "↓");
  attribute(by("direction"), "aria-label", `Turn round: now the ${heat.isUp ? "least" : "most"} first`);
  heat.filter = { pool: by("pool").value, state: by("state").value, find: by("find").value };
  table.page = 0;
  heat.arrange();
  table.draw();
  remember({ ...recall(), colour: heat.colour, sort: heat.sort, isUp: heat.isUp });
}

function controls() {
  for (const [name, of] of Object.entries({ colour: COLOURS, sort: SORTS })) {
    by(name).append(...Object.entries(of).map(([key, { label }]) => h("option", { value: key }, label)));
  }
  const remembered = recall();
  if (remembered.colour in COLOURS) by("colour").value = heat.colour = remembered.colour;
  if (remembered.sort in SORTS) heat.sort = remembered.sort;
  heat.isUp = remembered.isUp ?? Boolean(SORTS[heat.sort].up);
  for (const name of ["colour", "pool", "state"]) by(name).addEventListener("change", redraw);
  by("sort").addEventListener("change", () => sortBy(by("sort").value));
  by("direction").addEventListener("click", () => sortBy(heat.sort));
  by("find").addEventListener("input", redraw);
  by("as-table").addEventListener("click", () => {
    const isTable = by("bot-table").hidden;
    by("bot-table").hidden = !isTable;
    by("heat").hidden = by("heat-legend").hidden = isTable;
    by("as-table").setAttribute("aria-pressed", String(isTable));
    heat.arrange();
    table.draw();
  });
  by("freeze").addEventListener("click", freeze);
  redraw();
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      by("find").focus();
      event.preventDefault();
    } else if (event.key === "t") {
      by("task-id").focus();
      event.preventDefault();
    } else if (event.key === "u" && !by("toast").hidden) by("toast").querySelector("button")?.click();
    else if (event.key === "p") freeze();
  });
  document.addEventListener("visibilitychange", () => !document.hidden && !frozen && tick());
  windowButtons(remembered.window, (window) => (remember({ ...recall(), window }), store.view && draw()));
  tips();
}

function freeze() {
  frozen = !frozen;
  by("freeze").setAttribute("aria-pressed", String(frozen));
  text(by("freeze"), frozen ? "Update again" : "Freeze page");
  if (frozen) clearTimeout(timer), trouble(null);
  else tick();
}

/** Every chart knows what it shows at a place: one tooltip for all of them. */
function tips() {
  const tip = by("tip");
  document.addEventListener("pointermove", (event) => {
    const chart = event.target.closest?.(".chart");
    if (chart?.tipAt) {
      const { left, width } = chart.getBoundingClientRect();
      tip.hidden = false;
      text(tip, chart.tipAt((event.clientX - left) / width));
      put(tip, event);
    } else if (!event.target.closest?.(".heat")) tip.hidden = true;
  });
}

function remember(value) {
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify(value));
  } catch {
    // A browser without storage forgets; nothing else is lost.
  }
}

function recall() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED)) ?? {};
  } catch {
    return {};
  }
}

controls();
setInterval(() => trouble(lastReason), 1000);
tick().then(() => {
  const asked = new URLSearchParams(location.hash.slice(1)).get("bot");
  if (asked) open(asked);
  tasks.follow();
  finder.follow();
});
