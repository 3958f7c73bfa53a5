// The line at the top: what is wrong, worst first, each finding with the button or the command that helps; else all well.

import { attribute, by, counted, h, keyed, text } from "./draw.js";

/** Findings that are shown at once; the others are behind a click. */
const SHOWN = 4;
const MARKS = { critical: "×", warning: "!", info: "i" };
const VERBS = { resume: "Resume", release: "Release", pause: "Pause", quarantine: "Quarantine", resume_use: "Resume" };

/** Draw the findings of a view. `act` carries out an operator's action, `mayAct` tells whether this user may. */
export function diagnoses(view, { act, mayAct }) {
  const found = view.diagnoses;
  const place = by("diagnosis");
  place.hidden = false;
  attribute(place, "class", `diagnosis ${found[0]?.severity ?? "well"}`);
  by("all-well").hidden = found.length > 0;
  text(by("all-well"), `✓ all well${view.outlook ? `; ${view.outlook}` : ""}`);
  findings(by("findings"), found.slice(0, SHOWN), act, mayAct);
  by("more-findings").hidden = found.length <= SHOWN;
  text(by("more-findings").firstElementChild, `${counted(found.length - SHOWN, "more finding")}`);
  findings(by("other-findings"), found.slice(SHOWN), act, mayAct);
}

function findings(place, found, act, mayAct) {
  keyed(place, found, (one) => `${one.kind} ${one.about}`, () =>
    h("li", {}, h("i", { class: "mark" }), h("p", { class: "said" }), h("span", { class: "help" }, h("span", { class: "advice" }),
      h("button", { class: "quiet copy", type: "button" }, h("code")), h("button", { class: "quiet does", type: "button" }))),
  (node, one) => {
    const [mark, said, help] = node.children;
    const [advice, copy, does] = help.children;
    attribute(node, "class", one.severity);
    text(mark, MARKS[one.severity] ?? "i");
    attribute(mark, "title", one.severity);
    text(said, one.sentence);
    text(advice, one.help.advice.replaceAll("`", ""));
    copy.hidden = !one.help.command;
    text(copy.firstElementChild, one.help.command);
    attribute(copy, "title", "Copy this command");
    copy.onclick = () => copied(copy);
    const action = one.help.action;
    does.hidden = !action;
    if (!action) return;
    text(does, action.do === "release" && action.pool ? "Release all" : (VERBS[action.do] ?? action.do));
    attribute(does, "aria-label", `${VERBS[action.do] ?? action.do} ${action.pool ?? action.bot ?? action.name ?? ""}`.trim());
    attribute(does, "disabled", mayAct ? null : "");
    attribute(does, "title", mayAct ? null : document.body.dataset.whyNot);
    does.onclick = () => act(action, does);
  });
}

/** Put a command on the clipboard; where a page may not, select it, so that the keys do. */
export async function copied(button) {
  const code = button.firstElementChild;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.dataset.copied = "yes";
    setTimeout(() => delete button.dataset.copied, 1500);
  } catch {
    getSelection().selectAllChildren(code);
  }
}
