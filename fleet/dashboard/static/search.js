// Tasks found by what they are: `pool=research state=failed job=nightly` in the field that also opens a task by its id.
// The address #find=... asks the same, so a search can be shared.

import { ago, by, count, counted, h, named, text } from "./draw.js";
import { taskLink } from "./story.js";

export class TaskFinder {
  constructor(store) {
    this.store = store;
    // Before the field's other listener, which takes what is typed for an id.
    by("find-task").addEventListener("submit", (event) => this.#asked(event), true);
    by("found-close").addEventListener("click", () => this.close());
    by("found-link").addEventListener("click", (event) => this.#copy(event.currentTarget));
    addEventListener("hashchange", () => this.follow());
  }

  /** Ask what the address asks, if it asks for tasks. */
  follow() {
    const question = new URLSearchParams(location.hash.slice(1)).get("find");
    if (question && question !== this.question) this.find(question);
  }

  async find(question) {
    this.question = question;
    by("task-id").value = question;
    history.replaceState(null, "", this.#hash());
    by("found").hidden = false;
    by("found-tasks").replaceChildren();
    text(by("found-note"), "searching …");
    try {
      const found = await this.store.get(`/tasks?q=${encodeURIComponent(question)}`);
      if (question === this.question) this.#show(found);
    } catch (error) {
      if (question !== this.question) return;
      text(by("found-note"), "");
      by("found-tasks").replaceChildren(h("li", { class: "trouble" }, error.message));
    }
  }

  close() {
    this.question = null;
    by("found").hidden = true;
    if (location.hash.startsWith("#find=")) history.replaceState(null, "", location.pathname + location.search);
    by("task-id").focus();
  }

  #asked(event) {
    const question = by("task-id").value.trim();
    if (!question.includes("=")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    this.find(question);
  }

  #show(found) {
    const more = found.is_complete ? "" : "; there may be more: say more of them";
    const unread = found.unreadable ? `; ${counted(found.unreadable, "dead letter")} may be meant, too: they were too large to keep what they asked` : "";
    const blind = found.unsearched.length ? `; results say neither kind nor tenant, so ${found.unsearched.join(" and ")} ones were not searched` : "";
    text(by("found-note"), `${counted(found.tasks.length, "task")} of ${count(found.looked_at)} looked at${more}${blind}${unread}`);
    by("found-tasks").replaceChildren(...found.tasks.map(row));
    by("found").focus({ preventScroll: true });
  }

  #hash() {
    return `#find=${encodeURIComponent(this.question)}`;
  }

  async #copy(button) {
    const address = location.origin + location.pathname + location.search + this.#hash();
    try {
      await navigator.clipboard.writeText(address);
      text(button, "Copied");
    } catch {
      history.replaceState(null, "", this.#hash());
      text(button, "It is in the address bar");
    }
    setTimeout(() => text(button, "Copy link"), 2000);
  }
}

function row(task) {
  const pairs = Object.entries(task.metadata).map(([name, value]) => `${name}=${value}`).join(" ");
  const who = [named(task.pool, "pool"), task.bot ?? task.kind].filter(Boolean).join(", ");
  const at = task.at === null ? "" : ago(task.at, Date.now() / 1000);
  return h("li", {}, taskLink(task.task_id), h("span", {}, task.error ? `${task.state}: ${task.error}` : task.state), h("span", { class: "muted" }, who), h("time", { class: "muted" }, at),
    h("span", { class: "cut", title: pairs }, [task.tenant && `tenant ${task.tenant}`, pairs].filter(Boolean).join(" · ")));
}
