// One bot, opened: who it is, how it fares, what it did last, and the two things an operator can do with it.

import { ago, by, clock, count, dollars, duration, h, named, percent, short, timeOfDay } from "./draw.js";
import { spoken, taskLink } from "./story.js";

const REFRESH_MS = 3000;
const LENGTHS = [["until released", ""], ["10 minutes", 600], ["1 hour", 3600], ["1 day", 86400]];

// By what a bot's answers differ from its neighbours'.
function sampling({ temperature, effort, verbosity, model }) {
  const heat = temperature === null ? "no temperature" : `temperature ${temperature}`;
  return [model, heat, effort && `effort ${effort}`, verbosity && `verbosity ${verbosity}`].filter(Boolean).join(" · ");
}

// What is known of a bot's health, as pairs of name and text.
function healthFacts({ quarantine, probation_tasks_left, remedy, judged_tasks, quarantines, tests, skills, grades }) {
  return [
    ...(quarantine ? [["out since", clock(quarantine.since)], ["out until", quarantine.until === null ? "it is released" : clock(quarantine.until)],
      ["by", quarantine.by || "–"], ["reason", quarantine.reason || "–"]] : []),
    ...(probation_tasks_left === null ? [] : [["on probation", `${count(probation_tasks_left)} tasks to do well`]]),
    ...(remedy === null ? [] : [["remedy", `${remedy}, it answers like others`]]),
    ...tests.map((test) => [test.name, `${percent(test.share)} of its last tasks, evidence ${test.evidence.toFixed(1)} of ${test.enough}`]),
    ...(judged_tasks ? [["judged tasks", count(judged_tasks)], ["quarantines lately", count(quarantines)]] : []),
    ...skills.map((skill) => [`skill: ${skill.kind}`, `${percent(skill.good)} good of its last ${count(skill.tasks)}${skill.better === null ? "" : `, specialist: ${percent(skill.better)} better than its pool`}`]),
    ...(grades || []).map((one) => [`${one.of}: ${one.kind}`, `${percent(one.right)} ${one.of === "grades" ? "right" : "as most others say"} (${percent(one.least)} to ${percent(one.most)}, of ${count(one.grades)}); ${percent(one.usual)} is usual`]),
  ];
}

export class BotDialog {
  constructor(store, act) {
    this.store = store;
    this.act = act;
    this.box = by("bot");
    this.name = null;
    this.box.addEventListener("close", () => this.#closed());
    this.box.addEventListener("click", (event) => event.target === this.box && this.box.close());
  }

  async open(name) {
    this.name = name;
    this.opener = document.activeElement;
    history.replaceState(null, "", `#bot=${encodeURIComponent(name)}`);
    this.box.replaceChildren(this.#head(name, null), h("p", { class: "empty" }, "asking …"));
    if (!this.box.open) this.box.showModal();
    await this.refresh();
  }

  #closed() {
    clearTimeout(this.timer);
    this.name = null;
    history.replaceState(null, "", location.pathname + location.search);
    this.opener?.focus?.();
  }

  async refresh() {
    clearTimeout(this.timer);
    const name = this.name;
    if (!name) return;
    try {
      const bot = await this.store.bot(name);
      if (this.name !== name) return;
      // What somebody is typing in must stay.
      if (!this.box.querySelector("form")?.contains(document.activeElement)) this.#draw(bot);
    } catch (error) {
      if (this.name === name) this.box.replaceChildren(this.#head(name, null), h("p", { class: "trouble" }, error.message));
    }
    if (this.name) this.timer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  #head(name, state) {
    return h("header", { class: "line" }, h("h2", { id: "bot-name" }, name), state ? h("span", { class: `pill state-${state}` }, state) : null,
      h("button", { type: "button", class: "quiet end", "aria-label": "Close", onclick: () => this.box.close() }, "×"));
  }

  #draw(bot) {
    const now = Date.now() / 1000;
    const keep = { top: this.box.scrollTop, closing: document.activeElement?.getAttribute("aria-label") === "Close" };
    const { persona } = bot;
    const figures = [
      ["last hour", short(bot.per_hour)], ["in all", short(bot.completions)],
      ["failed", bot.completions ? `${short(bot.failed)} (${percent(bot.failed / bot.completions)})` : "–"],
      ["failed calls", short(bot.calls_failed)], ["in hand", count(bot.load)], ["a task takes", bot.mean_ms ? duration(bot.mean_ms / 1000) : "–"],
      ["tokens", short(bot.tokens)], ["cost", dollars(bot.cost_usd_micros)], ["last task", ago(bot.last_at, now)],
    ];
    const facts = healthFacts(bot.health);
    this.box.replaceChildren(
      this.#head(bot.name, bot.state),
      h("p", { class: "muted" }, `pool ${bot.pool} · ${bot.api}`),
      h("dl", { class: "facts" }, ...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      this.#actions(bot),
      h("h3", {}, "Persona"),
      h("p", {}, h("b", {}, persona.archetype), ` · ${sampling(persona)} · ${short(persona.context_window_tokens)} tokens of context`),
      h("details", {}, h("summary", {}, "system prompt"), h("blockquote", {}, persona.system_prompt)),
      h("h3", {}, "Health"),
      facts.length ? h("dl", { class: "facts" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : h("p", { class: "note" }, "nothing against it"),
      h("h3", {}, "Last tasks"),
      list(bot.tasks, "No task yet.", ["task", "when", "status", "ran"], (task) => [taskLink(task.task_id), ago(task.at, now), h("span", { class: `pill ${{ ok: "good", degraded: "warn", failed: "bad" }[task.status]}` }, task.status), duration(task.ran_ms / 1000)]),
      h("h3", {}, "Errors"),
      list(bot.errors, "None.", ["API", "error", "tasks", "calls"], (row) => [named(row.api, "API"), row.type, count(row.failures), count(row.calls)]),
      ...(bot.failures.length ? [h("h3", {}, "Last failures"), list(bot.failures, "", ["task", "at (UTC)", "API", "error"], (row) => [taskLink(row.task_id), timeOfDay(row.at), named(row.api, "API"), row.type])] : []),
    );
    this.box.scrollTop = keep.top;
    if (keep.closing) this.box.querySelector("[aria-label=Close]").focus();
  }

  #actions(bot) {
    if (document.body.dataset.mayAct !== "yes") return h("p", { class: "note" }, ...spoken(`No quarantine or release from here: ${document.body.dataset.whyNot}`));
    if (bot.state === "quarantined") {
      const button = h("button", { type: "button", class: "action" }, "Release");
      button.onclick = async () => (await this.act({ do: "release", bot: bot.name }, button)) && this.refresh();
      return h("div", { class: "act" }, button, h("span", { class: "note" }, "takes tasks again, at once"));
    }
    const reason = h("input", { type: "text", maxlength: 200, required: true, placeholder: "why (shown to all)", "aria-label": "Reason" });
    const length = h("select", { "aria-label": "For how long" }, ...LENGTHS.map(([label, value]) => h("option", { value }, label)));
    const button = h("button", { type: "submit", class: "action danger" }, "Quarantine");
    const form = h("form", { class: "act" }, reason, length, button);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const done = await this.act({ do: "quarantine", bot: bot.name, reason: reason.value, for_s: length.value ? Number(length.value) : null }, button);
      if (done) {
        button.blur();
        this.box.querySelector("[aria-label=Close]").focus();
        await this.refresh();
      }
    });
    return form;
  }
}

function list(rows, empty, heads, cells) {
  if (!rows.length) return h("p", { class: "note" }, empty);
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row).map((cell) => h("td", {}, cell)))))));
}
