// Jobs, many tasks with one end: how far each is, what failed in it, and what can be done about it. #job=ID opens one.

import { ago, attribute, by, count, counted, decimal, duration, h, keyed, text } from "./draw.js";
import { taskLink } from "./story.js";

const WAYS = [["ok", "fine"], ["degraded", "near"], ["failed", "bad"], ["cancelled", "gone"]];
const PILLS = { open: "warn", sealed: "state-busy", done: "good", cancelled: "" };
const opened = new Set(); // jobs whose members are listed
let followed = "";

/** Draw the panel; hidden while no job is known. */
export function jobs({ jobs: { live, jobs: all }, at }, { store, act, mayAct }) {
  by("jobs-panel").hidden = !all.length;
  if (!all.length) return;
  text(by("jobs-note"), live ? `${count(live)} under way` : "none under way");
  follow();
  keyed(by("jobs"), all, (job) => job.id, (job) => row(job, store), (node, job) => {
    const [head, bar, figures, trouble, asked, detail] = node.children;
    const [name, pill, ...buttons] = head.children;
    text(name, job.key);
    attribute(name, "title", job.id);
    text(pill, job.word);
    attribute(pill, "class", `pill ${PILLS[job.word]}`);
    progress(bar, job);
    text(figures, told(job, at));
    trouble.hidden = !job.trouble;
    text(trouble, job.trouble);
    const isLive = job.total === null || job.ended < job.total;
    const can = { seal: job.word === "open", cancel: isLive && job.word !== "cancelled", replay: job.failed > 0 };
    for (const button of buttons) {
      button.hidden = !can[button.dataset.deed];
      attribute(button, "disabled", mayAct ? null : "");
      attribute(button, "title", mayAct ? null : document.body.dataset.whyNot);
      button.onclick = () => ask(asked, job, button.dataset.deed, act);
    }
    detail.hidden = !opened.has(job.id);
    attribute(name, "aria-expanded", String(opened.has(job.id)));
    if (opened.has(job.id) && detail.dataset.ended !== `${job.ended} ${job.failed}`) members(detail, job, store);
  });
}

/** Open the job that the address names, once. */
function follow() {
  const id = new URLSearchParams(location.hash.slice(1)).get("job") ?? "";
  if (id === followed) return;
  followed = id;
  if (!id) return;
  opened.add(id);
  by("jobs-panel").scrollIntoView({ block: "start" });
}

function row(job, store) {
  const name = h("button", { type: "button", class: "link cut", "aria-expanded": "false" });
  const detail = h("div", { class: "members", hidden: true });
  name.onclick = () => {
    const isOpen = !opened.delete(job.id) && Boolean(opened.add(job.id));
    attribute(name, "aria-expanded", String(isOpen));
    detail.hidden = !isOpen;
    if (isOpen) members(detail, job, store);
  };
  const button = (deed, label) => h("button", { type: "button", class: "quiet", "data-deed": deed }, label);
  return h("li", {}, h("div", { class: "line" }, name, h("span", { class: "pill" }), button("seal", "Seal"), button("cancel", "Cancel"), button("replay", "Replay failed")),
    h("div", { class: "share", role: "img" }), h("p", { class: "muted" }), h("p", { class: "trouble", hidden: true }), h("div", { class: "asked", hidden: true }), detail);
}

function progress(bar, job) {
  const all = Math.max(1, job.total ?? job.queued);
  keyed(bar, WAYS, ([name]) => name, ([, look]) => h("span", { class: look }), (part, [name]) => {
    part.style.width = `${(100 * job[name]) / all}%`;
    attribute(part, "title", `${count(job[name])} ${name}`);
  });
  attribute(bar, "aria-label", `${count(job.ended)} of ${count(job.total ?? job.queued)} ended`);
}

function told(job, at) {
  const said = [`${count(job.ended)} of ${counted(job.total ?? job.queued, "task")}${job.total === null ? " so far" : ""}`];
  for (const [name] of WAYS.slice(1)) if (job[name]) said.push(`${count(job[name])} ${name}`);
  if (job.per_minute) said.push(`${decimal(job.per_minute)} a minute`);
  if (job.left_s !== null) said.push(`${duration(job.left_s)} left`);
  said.push(job.done_at ? `done ${ago(job.done_at, at)}` : `moved ${ago(job.moved_at, at)}`);
  return said.join(" · ");
}

async function members(place, job, store) {
  place.dataset.ended = `${job.ended} ${job.failed}`;
  try {
    const found = await store.get(`/job/${encodeURIComponent(job.id)}`);
    const list = (head, ids, all) => (ids.length ? [h("p", { class: "note" }, all > ids.length ? `${head}, the first ${ids.length} of ${count(all)}` : head), h("ul", { class: "letters" }, ...ids.map((id) => h("li", {}, taskLink(id))))] : []);
    const then = job.then_id ? [h("p", { class: "note" }, job.called_at ? "What followed it: " : "What will follow it: ", taskLink(job.then_id))] : [];
    place.replaceChildren(...list("Failed", found.failed, job.failed), ...list("Not ended yet", found.pending, (job.total ?? job.queued) - job.ended), ...then);
    if (!place.firstChild) place.append(h("p", { class: "note" }, "All of its tasks have ended, and none failed."));
  } catch (error) {
    place.replaceChildren(h("p", { class: "trouble" }, error.message));
  }
}

const QUESTIONS = {
  seal: (job) => [`Let it get no more tasks? It ends with the ${counted(job.queued, "task")} that it has; what follows it then follows.`, "Seal it"],
  cancel: (job) => [`Cancel what has not ended, ${counted((job.total ?? job.queued) - job.ended, "task")}? Results that there are stay, and nothing follows it.`, "Cancel it"],
  replay: (job) => [`Queue ${counted(job.failed, "failed task")} again? Each costs what its answer costs.`, "Replay them"],
};

function ask(place, job, deed, act) {
  const [question, verb] = QUESTIONS[deed](job);
  const running = deed === "cancel" ? h("input", { type: "checkbox" }) : null;
  const yes = h("button", { type: "button", class: `action ${deed === "cancel" ? "danger" : ""}` }, verb);
  const close = () => {
    if (!place.contains(yes)) return; // something else is asked by now
    place.hidden = true;
    place.replaceChildren();
  };
  yes.onclick = async () => {
    const answer = await act({ do: `${deed}_job`, job: job.id, ...(running ? { running: running.checked } : {}) }, yes);
    if (!answer) return;
    if (!answer.more) return close();
    text(yes, "Go on with the rest");
  };
  place.hidden = false;
  place.replaceChildren(h("p", {}, question), ...(running ? [h("label", {}, running, " also stop those that run")] : []),
    h("div", { class: "act" }, yes, h("button", { type: "button", class: "quiet", onclick: close }, "Leave it")));
  yes.focus();
}
