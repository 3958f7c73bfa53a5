// Dead letters: counted by reason, opened to the newest ones, replayed and thrown away in bulk after a look at the cost.

import { ago, attribute, by, count, counted, dollars, h, keyed, named, short, text } from "./draw.js";
import { taskLink } from "./story.js";

const open = new Set(); // reasons whose letters are listed
const MOST_GROUPS = 2000; // as many pools times reasons are counted: beyond that each figure is a lower bound

/** Draw the panel; hidden while there are no letters. */
export function deadLetters(view, { store, act, mayAct }) {
  const reasons = byReason(view.dead);
  const bound = view.dead.length >= MOST_GROUPS ? "at least " : "";
  by("dead-panel").hidden = !reasons.length;
  text(by("dead-note"), reasons.length ? bound + counted(reasons.reduce((sum, one) => sum + one.count, 0), "task") : "");
  keyed(by("dead"), reasons, (one) => one.reason, (one) => row(one, store), (node, one) => {
    const [head, asked] = node.children;
    const [name, figures, replay, purge] = head.children;
    text(name, one.reason);
    text(figures.children[0], bound + count(one.count));
    text(figures.children[1], `last ${ago(one.newest_at, view.at)}`);
    attribute(figures, "title", one.groups.map((group) => `${named(group.pool, "pool")}: ${count(group.count)}`).join(", "));
    for (const [button, verb] of [[replay, "replay"], [purge, "purge"]]) {
      attribute(button, "disabled", mayAct ? null : "");
      attribute(button, "title", mayAct ? null : document.body.dataset.whyNot);
      button.onclick = () => ask(asked, one, verb, act, bound);
    }
  });
}

/** Sum the groups of one reason over pools. */
function byReason(groups) {
  const found = new Map();
  for (const group of groups) {
    const one = found.get(group.reason) ?? { reason: group.reason, count: 0, newest_at: 0, cost: 0, unpriced: 0, groups: [] };
    one.count += group.count;
    one.newest_at = Math.max(one.newest_at, group.newest_at);
    if (group.replay_usd_micros === null) one.unpriced += group.count;
    else one.cost += group.replay_usd_micros;
    one.groups.push(group);
    found.set(group.reason, one);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

function row({ reason }, store) {
  const list = h("ul", { class: "letters", hidden: true });
  const name = h("button", { type: "button", class: "link", "aria-expanded": "false" });
  name.onclick = async () => {
    const isOpen = !open.delete(reason) && Boolean(open.add(reason));
    attribute(name, "aria-expanded", String(isOpen));
    list.hidden = !isOpen;
    if (isOpen) await letters(list, reason, store);
  };
  return h("li", {}, h("div", { class: "line" }, name, h("span", { class: "figures end" }, h("b"), h("span")),
    h("button", { type: "button", class: "quiet" }, "Replay"), h("button", { type: "button", class: "quiet" }, "Throw away")),
  h("div", { class: "asked", hidden: true }), list);
}

async function letters(list, reason, store) {
  try {
    const { letters: found } = await store.get(`/dead?reason=${encodeURIComponent(reason)}`);
    list.replaceChildren(...found.map((letter) => h("li", {}, taskLink(letter.task_id), h("span", { class: "muted" }, named(letter.pool, "pool")), h("span", { class: "cut", title: letter.message }, letter.message))));
    if (!found.length) list.append(h("li", { class: "note" }, "They are gone."));
  } catch (error) {
    list.replaceChildren(h("li", { class: "trouble" }, error.message));
  }
}

/** Say what it will cost before it is done. */
function ask(place, one, verb, act, bound) {
  const rest = one.unpriced ? `, and what ${short(one.unpriced)} of pools without an answer in the last two days cost` : "";
  const price = one.unpriced === one.count
    ? "Nobody knows what that costs: no task of their pools was answered in the last two days."
    : `It may cost ${bound || "about "}${dollars(one.cost)}${rest}: their number times what an answer of their pool has cost on average.`;
  const question = verb === "replay"
    ? `Queue ${bound}${counted(one.count, "task")} again? ${price}`
    : `Throw ${bound}${counted(one.count, "dead letter")} away? Their messages go for good.`;
  const yes = h("button", { type: "button", class: `action ${verb === "purge" ? "danger" : ""}` }, verb === "replay" ? "Replay them" : "Throw them away");
  const close = () => {
    place.hidden = true;
    place.replaceChildren();
  };
  let action = { do: verb, reason: one.reason };
  yes.onclick = async () => {
    const answer = await act(action, yes);
    if (!answer) return;
    if (!answer.more) return close();
    action = answer.more;
    text(yes, "Go on with the rest");
  };
  place.hidden = false;
  place.replaceChildren(h("p", {}, question), h("div", { class: "act" }, yes, h("button", { type: "button", class: "quiet", onclick: close }, "Leave them")));
  yes.focus();
}
