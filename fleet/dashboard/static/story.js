// One task, opened: where it is and why, its steps, its cost, and what can be done about it. Any element with `data-task`
// opens the task that it names; so do the search field and the address #task=ID.

import { copied } from "./diagnosis.js";
import { by, counted, dollars, duration, h, short, timeOfDay } from "./draw.js";

const REFRESH_MS = 3000;
const DEEDS = {
  cancel: ["Cancel", (task) => ({ do: "cancel", task })],
  stop: ["Stop it while it runs", (task) => ({ do: "cancel", task, running: true })],
  replay: ["Replay", (task) => ({ do: "replay", task })],
  purge: ["Throw away", (task) => ({ do: "purge", task })],
};
const STATE_PILLS = { finished: "good", failed: "bad", poison: "bad", queued: "warn", parked: "warn", running: "state-busy" };

/** A task's id that opens it; `id` may be shown short. */
export const taskLink = (id) =>
  h("button", { class: "link", type: "button", "data-task": id, title: id }, id.length > 13 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

export class TaskDialog {
  constructor(store, act) {
    this.store = store;
    this.act = act;
    this.id = null;
    this.box = by("task");
    this.box.addEventListener("close", () => this.#closed());
    this.box.addEventListener("click", (event) => event.target === this.box && this.box.close());
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("[data-task]");
      if (link) this.open(link.dataset.task);
    });
    by("find-task").addEventListener("submit", (event) => {
      event.preventDefault();
      const id = by("task-id").value.trim();
      if (id) this.open(id);
    });
    addEventListener("hashchange", () => this.follow());
  }

  /** Open the task that the address names, if it names one. */
  follow() {
    const id = new URLSearchParams(location.hash.slice(1)).get("task");
    if (id && id !== this.id) this.open(id);
  }

  async open(id) {
    if (!this.box.open) this.opener = document.activeElement;
    this.before = this.box.open ? this.before : location.hash;
    this.id = id;
    this.isThorough = false;
    history.replaceState(null, "", `#task=${encodeURIComponent(id)}`);
    this.box.replaceChildren(this.#head(null), h("p", { class: "empty" }, "asking …"));
    if (!this.box.open) this.box.showModal();
    await this.refresh();
  }

  #closed() {
    clearTimeout(this.timer);
    this.id = null;
    history.replaceState(null, "", location.pathname + location.search + (this.before.startsWith("#bot=") && by("bot").open ? this.before : ""));
    this.opener?.focus?.();
  }

  async refresh() {
    clearTimeout(this.timer);
    const id = this.id;
    if (!id) return;
    try {
      const wasThorough = this.isThorough;
      const page = await this.store.get(`/task/${encodeURIComponent(id)}${this.isThorough ? "?thorough=1" : ""}`);
      if (this.id !== id) return;
      this.#draw(page);
      this.isThorough = false;
      if (wasThorough || page.story.state === "unknown") return; // what was found stays until it is asked for again
    } catch (error) {
      if (this.id === id) this.box.replaceChildren(this.#head(null), h("p", { class: "trouble" }, error.message));
    }
    if (this.id) this.timer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  #head(state) {
    return h("header", { class: "line" }, h("h2", { id: "task-name" }, "Task"), state ? h("span", { class: `pill ${STATE_PILLS[state] ?? ""}` }, state) : null,
      h("button", { type: "button", class: "quiet end", "aria-label": "Close", onclick: () => this.box.close() }, "×"));
  }

  #draw({ story, deeds, texts, hidden }) {
    const keep = { top: this.box.scrollTop, label: this.box.contains(document.activeElement) ? document.activeElement.textContent : null };
    const facts = [
      ["pool", story.pool ?? "–"], ["priority", story.priority ?? "–"], ["bot", story.bot ?? "–"],
      ["ahead of it", story.ahead === null ? "–" : short(story.ahead)], ["calls", story.attempts ?? "–"], ["went back", story.parked ? `${story.parked} ×` : "never"],
      ["tokens", short(story.tokens)], ["cost", story.cost_usd_micros === null ? "–" : dollars(story.cost_usd_micros)], ["error", story.error ?? "none"],
    ];
    this.box.replaceChildren(
      this.#head(story.state),
      h("p", { class: "whole" }, h("button", { class: "quiet copy", type: "button", title: "Copy this id", onclick: (event) => copied(event.currentTarget) }, h("code", {}, story.task_id))),
      ...this.#deeds(story, deeds),
      h("ul", { class: "said" }, ...said(story).map((line) => h("li", {}, ...spoken(line)))),
      ...(story.is_search_complete ? [] : [this.#further(story)]),
      ...(story.job ? [h("p", { class: "note" }, "A task of job ", h("button", { class: "link", type: "button", onclick: () => this.#toJob(story.job) }, story.job))] : []),
      h("dl", { class: "facts" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("h3", {}, "Steps (UTC)"),
      story.steps.length ? h("ol", { class: "steps" }, ...story.steps.map(step)) : h("p", { class: "note" }, "Nothing is recorded of it."),
      ...shown(texts, hidden),
    );
    this.box.scrollTop = keep.top;
    if (keep.label) [...this.box.querySelectorAll("button")].find((button) => button.textContent === keep.label)?.focus();
  }

  #deeds(story, deeds) {
    if (!deeds.length) return [];
    if (document.body.dataset.mayAct !== "yes") return [h("p", { class: "note" }, ...spoken(`No cancel or replay from here: ${document.body.dataset.whyNot}`))];
    return [h("div", { class: "act" }, ...deeds.map((name) => {
      const [label, action] = DEEDS[name];
      const button = h("button", { type: "button", class: name === "purge" || name === "stop" ? "action danger" : "action" }, label);
      button.onclick = async () => (await this.act(action(story.task_id), button)) && this.refresh();
      return button;
    }))];
  }

  /** Show the job of this task on the page. */
  #toJob(id) {
    this.box.close();
    location.hash = `#job=${id}`;
  }

  #further(story) {
    const button = h("button", { type: "button", class: "quiet" }, "Look through all queues");
    button.onclick = () => {
      button.disabled = true;
      this.isThorough = true;
      return this.refresh();
    };
    return h("div", { class: "act" }, button, h("span", { class: "note" }, `${counted(story.looked_at, "waiting task")} looked at so far`));
  }
}

/** What there is to say, the last of it first: that it is known nowhere comes before what to do about that. */
const said = ({ state, lines }) => (state === "unknown" ? lines : [...lines].reverse());

/** A sentence of the shell, in which a command stands between backticks. */
export const spoken = (line) => line.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

function step({ name, at, took_s, told }) {
  return h("li", {}, h("time", {}, at === null ? "" : timeOfDay(at)), h("b", {}, name), h("span", {}, told), h("i", {}, took_s === null ? "" : duration(took_s)));
}

function shown(texts, hidden) {
  if (texts === null) return [h("p", { class: "note" }, hidden)];
  return [["Prompt", texts.prompt, "Its message has gone."], ["Answer", texts.answer, "There is none."]].flatMap(([head, text, none]) =>
    [h("h3", {}, head), text === null ? h("p", { class: "note" }, none) : h("blockquote", {}, text)]);
}
