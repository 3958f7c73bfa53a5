// Actions made safe: what a pause stops and for how long, a reason for a quarantine, many bots at once, and a way back.

import { attribute, by, counted, h, text } from "./draw.js";

const LENGTHS = [["until resumed", ""], ["for 10 minutes", 600], ["for 1 hour", 3600], ["for 1 day", 86400]];
const STOPPED = [["all tasks", ""], ...["critical", "high", "normal", "low"].map((name) => [`what is less urgent than ${name}`, name])];

/** A button that brings back what was before an action; none when nothing was. */
export function undoButton(undo, act) {
  if (!undo?.length) return [];
  const button = h("button", { type: "button", class: "quiet" }, "Undo");
  button.onclick = async () => {
    for (const [k, action] of undo.entries()) if (!(await act(action, button, k < undo.length - 1))) return;
  };
  return [button];
}

/** Ask what pools stop taking and for how long, and pause them. */
export function askPause(pools, act) {
  const what = choice("What waits", STOPPED);
  const length = choice("How long", LENGTHS);
  ask(`Pause ${listed(pools)}`, "What runs goes on; what waits keeps its order.", [what, length], "Pause", (button) =>
    act({ do: "pause", pools, lowest: what.value || null, for_s: length.value ? Number(length.value) : null }, button));
}

function askQuarantine(bots, lost, act) {
  const reason = h("input", { type: "text", maxlength: 200, required: true, placeholder: "why (shown to all)", "aria-label": "Reason" });
  const length = choice("How long", [["until released", ""], ...LENGTHS.slice(1)]);
  const warning = lost.length ? ` No bot is left in ${listed(lost)}: its tasks wait.` : "";
  ask(`Quarantine ${counted(bots.length, "bot")}`, `What they run goes on.${warning}`, [reason, length], "Quarantine", (button) =>
    act({ do: "quarantine", bots, reason: reason.value, for_s: length.value ? Number(length.value) : null }, button));
}

function ask(title, note, fields, verb, doIt) {
  const box = by("sure");
  const button = h("button", { type: "submit", class: "action danger" }, verb);
  const cancel = h("button", { type: "button", class: "quiet", onclick: () => box.close() }, "Cancel");
  const form = h("form", { class: "act" }, ...fields, button, cancel);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await doIt(button)) box.close();
  });
  box.replaceChildren(h("h2", { id: "sure-title" }, title), h("p", { class: "note" }, note), form);
  box.showModal();
  fields[0].focus();
}

const choice = (label, options) => h("select", { "aria-label": label }, ...options.map(([name, value]) => h("option", { value }, name)));
const listed = (names) => (names.length > 4 ? `${names.slice(0, 4).join(", ")} and ${names.length - 4} more` : names.join(", "));

/** Bots chosen on the map or in the table, and what can be done with all of them. */
export class Selection {
  constructor(heat, table, act) {
    this.heat = heat;
    this.table = table;
    this.isOn = false;
    const bar = by("chosen");
    this.count = h("b", { role: "status" });
    const button = (label, onclick, hint) => h("button", { type: "button", class: "quiet", onclick, title: hint }, label);
    const names = () => [...heat.selected];
    this.always = [button("All shown", () => this.#set(heat.order.map((i) => heat.bots.names[i])), "All bots that the filters let through"), button("None", () => this.#set([]))];
    this.deeds = [
      button("Quarantine …", () => askQuarantine(names(), this.#lost(), act)),
      button("Release", (event) => act({ do: "release", bots: names() }, event.currentTarget)),
      button("Pause their pools …", () => askPause(this.#pools(), act)),
      button("Resume their pools", (event) => act({ do: "resume", pools: this.#pools() }, event.currentTarget)),
    ];
    bar.append(this.count, ...this.always, ...this.deeds);
    by("choose").addEventListener("click", () => this.#turn(!this.isOn));
  }

  /** Choose a bot, or no longer, while bots are being chosen; false: they are not. */
  takes(name) {
    if (!this.isOn) return false;
    const names = new Set(this.heat.selected);
    if (!names.delete(name)) names.add(name);
    this.#set(names);
    return true;
  }

  /** Show how many are chosen and what may be done. */
  draw() {
    const mayAct = document.body.dataset.mayAct === "yes";
    text(this.count, `${counted(this.heat.selected.size, "bot")} chosen`);
    for (const button of this.deeds) {
      attribute(button, "disabled", mayAct && this.heat.selected.size && !button.dataset.busy ? null : "");
      attribute(button, "title", mayAct ? null : document.body.dataset.whyNot);
    }
  }

  #turn(isOn) {
    this.isOn = this.heat.isChoosing = isOn;
    by("choose").setAttribute("aria-pressed", String(isOn));
    by("chosen").hidden = !isOn;
    this.#set(isOn ? this.heat.selected : []);
  }

  #set(names) {
    this.heat.selected = new Set(names);
    if (this.heat.bots) this.heat.arrange();
    this.table.draw();
    this.draw();
  }

  #each() {
    const { bots, selected } = this.heat;
    return bots.names.map((name, i) => [name, bots.pools[i]]).filter(([name]) => selected.has(name));
  }

  #pools() {
    return [...new Set(this.#each().map(([, pool]) => pool))];
  }

  /** Pools of which all bots are chosen. */
  #lost() {
    const left = new Set(this.heat.bots.pools.filter((_, i) => !this.heat.selected.has(this.heat.bots.names[i])));
    return this.#pools().filter((pool) => !left.has(pool));
  }
}
