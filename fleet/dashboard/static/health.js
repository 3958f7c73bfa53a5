// The worst bots by name, and whether bots still answer differently: two panels that are drawn anew from each view.

import { ago, attribute, by, clock, counted, decimal, duration, h, keyed, left, meter, percent, text } from "./draw.js";

const CLASSES_SHOWN = 12;
const SURE_MS = 5000; // for so long a second click on "Relearn" does it
const PHASES = { learning: "", watching: "good", treating: "warn", holding: "warn", exhausted: "bad" };
const ASPECTS = { across: "different prompts", within: "one prompt" };

/** List the worst five: why, since when and until when they are out, or what speaks against them. */
export function worst({ health, at }, open) {
  const out = health.pools.reduce((sum, pool) => sum + pool.out, 0);
  const suspected = health.pools.reduce((sum, pool) => sum + pool.suspected, 0);
  const full = health.pools.filter((pool) => pool.kept_in);
  const said = [out && `${counted(out, "bot")} out`, suspected && `${counted(suspected, "bot")} suspected`];
  for (const pool of full) said.push(`${pool.pool}: ${counted(pool.kept_in, "bad bot")} at work, since at most ${pool.most_out} of ${pool.bots} may be out`);
  text(by("worst-note"), said.filter(Boolean).join(", ") || "no bot is out or suspected");
  keyed(by("worst"), health.worst, (one) => one.bot, (one) => h("li", {}, h("button", { class: "link", type: "button", onclick: () => open(one.bot) }, one.bot), h("span", {}), h("span", { class: "why" }), h("span", { class: "note" })), (node, one) => {
    const [, state, why, when] = node.children;
    text(state, one.state);
    attribute(state, "class", `pill state-${one.state}`);
    text(why, [one.reason || "no reason given", one.by && one.by !== "health" && `by ${one.by}`, one.alike && "answers like others"].filter(Boolean).join(", "));
    text(when, one.state === "quarantined" ? `${one.since ? `out for ${duration(Math.max(0, at - one.since))}, ` : ""}until ${one.until ? `${clock(one.until)}, in ${left(one.until - at)}` : "it is released"}` : `evidence ${one.evidence.toFixed(1)} of ${one.enough.toFixed(1)}`);
  });
}

/** Show each class of tasks: its score against what is usual, who is alike, what is tried, and what came of it. */
export function diversity({ diversity: classes, at }, { act, open, mayAct }) {
  const alarms = classes.filter((one) => one.alarm).length;
  const more = classes.length - CLASSES_SHOWN;
  text(by("diversity-note"), !classes.length ? "no answers yet that are long enough to compare (8 words)"
    : `${classes.length === 1 ? "1 class" : `${classes.length} classes`} of tasks, ${alarms ? `${counted(alarms, "alarm")}` : "no alarm"}, by their last answers${more > 0 ? `; ${more} more: fleet diversity` : ""}`);
  keyed(by("diversity"), classes.slice(0, CLASSES_SHOWN), (one) => `${one.pool} ${one.kind}`, () => h("li", {},
    h("div", { class: "line" }, h("b", { class: "cut" }), h("span", { class: "pill" }), h("button", { type: "button", class: "quiet end" }, "Relearn")),
    h("p", { class: "how" }), h("div", { class: "scores" }), h("p", { class: "note names" }), h("p", { class: "note" })), (node, one) => {
    const [head, how, scores, names, verdict] = node.children;
    const [title, phase, button] = head.children;
    text(title, `${one.pool} · ${one.kind}`);
    text(phase, one.alarm ? `alike: ${one.phase}` : one.phase);
    attribute(phase, "class", `pill ${one.alarm && one.phase !== "holding" ? "bad" : PHASES[one.phase]}`);
    text(how, `${one.line[0].toUpperCase()}${one.line.slice(1)}${one.alarm_at ? `, since ${clock(one.alarm_at)} (${ago(one.alarm_at, at)})` : ""}.`);
    attribute(how, "class", one.alarm ? "how alarm" : "how");
    keyed(scores, rows(one), (row) => row.name, (row) => h("div", { class: "use" }, h("span", {}, row.name), h("div", { class: "meter" }), h("b")), (line, row) => {
      meter(line.children[1], row.used, row.most);
      attribute(line.children[1].firstChild.firstChild, "class", row.isBad ? "full" : "fine");
      text(line.lastElementChild, row.value);
    });
    named(names, one, open);
    text(verdict, [one.verdict && `Last verdict: ${one.verdict}.`, one.advice && `${one.advice[0].toUpperCase()}${one.advice.slice(1)}.`].filter(Boolean).join(" ").replaceAll("`", ""));
    sure(button, one, act, mayAct);
  });
}

/** The figures of a class as meters: scores against what is usual, and what is left of the likeness at the alarm. */
function rows(one) {
  const scores = one.scores.map((score) => ({ name: ASPECTS[score.aspect] ?? score.aspect, used: score.score, most: score.usual_score ?? score.score, isBad: score.fallen,
    value: score.usual_score ? `${decimal(score.score)} of usually ${decimal(score.usual_score)}; near ${percent(score.near_share)}, usually ${percent(score.usual_near_share)}` : `${decimal(score.score)}; what is usual is not known yet` }));
  for (const [name, n, left] of [["treated", one.treated, one.treated_left], ["control", one.control, one.control_left]]) {
    if (n) scores.push({ name, used: left ?? 0, most: 1, isBad: left !== null && left > 1 / 3, value: `${counted(n, "bot")}${left === null ? "" : `, ${percent(left)} of the likeness left`}` });
  }
  return scores;
}

function named(place, one, open) {
  const key = JSON.stringify([one.culprits, one.flagged]);
  if (place.dataset.drawn === key) return;
  place.dataset.drawn = key;
  const links = one.culprits.flatMap((bot, k) => [k ? ", " : "Alike: ", h("button", { class: "link", type: "button", onclick: () => open(bot) }, bot)]);
  place.replaceChildren(...links, one.flagged > one.culprits.length ? ` and ${one.flagged - one.culprits.length} more` : "");
}

/** What is normal is forgotten for good: a second click must say so. */
function sure(button, one, act, mayAct) {
  const isAsked = Number(button.dataset.asked ?? 0) > performance.now();
  text(button, isAsked ? "Relearn: sure?" : "Relearn");
  attribute(button, "aria-label", `${isAsked ? "Really relearn" : "Relearn"} ${one.pool} ${one.kind}`);
  attribute(button, "title", mayAct ? "Take the answers of now as normal: forget earlier ones, end alarm and remedies" : document.body.dataset.whyNot);
  attribute(button, "disabled", mayAct ? null : "");
  button.onclick = () => {
    if (Number(button.dataset.asked ?? 0) > performance.now()) {
      button.dataset.asked = 0;
      act({ do: "relearn", pool: one.pool, kind: one.kind }, button);
    } else button.dataset.asked = performance.now() + SURE_MS;
    sure(button, one, act, mayAct);
  };
}
