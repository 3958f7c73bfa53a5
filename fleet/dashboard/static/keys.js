// Keys of providers and tools, by fingerprint: where each comes from, how old it is, whom it serves, what of that is used.

import { attribute, by, count, duration, h, keyed, text } from "./draw.js";

const NEAR = 0.8; // used share from which a bar turns yellow
const PILL = { serves: "good", changes: "warn", waits: "bad" };

/** Draw the panel; hidden while no worker has a key. */
export function keys({ keys: all, at }) {
  by("keys-panel").hidden = !all.length;
  keyed(by("keys"), all, (key) => key.key, line, (node, key) => {
    const [head, told, why, uses] = node.children;
    text(head.children[0], key.key);
    text(head.children[1], key.fingerprints.join(", "));
    text(head.children[2], key.state);
    attribute(head.children[2], "class", `pill ${PILL[key.state]}`);
    text(told, [
      key.source,
      key.made_at ? `this version is ${duration(Math.max(0, at - key.made_at))} old` : "age unknown",
      key.expires_at ? `the first token ends in ${duration(Math.max(0, key.expires_at - at))}` : "",
      `in ${count(key.workers)} ${key.workers === 1 ? "process" : "processes"}`,
      key.scope ? `serves ${key.scope}` : "",
    ].filter(Boolean).join(" · "));
    why.hidden = !key.waits;
    text(why, key.waits);
    uses.hidden = !key.used.length;
    keyed(uses, key.used, (use) => use.line.split(" ").at(-1), use, (item, { share, line: told }) => {
      const bar = item.firstChild.firstChild;
      bar.style.width = `${Math.min(100, share * 100)}%`;
      attribute(bar, "class", share >= 1 ? "bad" : share >= NEAR ? "near" : "fine");
      text(item.lastChild, `${told} today`);
    });
  });
}

function line() {
  return h("li", {}, h("span", { class: "head" }, h("b", { class: "cut" }), h("code"), h("span", { class: "pill" })),
    h("span", { class: "muted" }), h("span", { class: "why", hidden: true }), h("ul", { class: "uses", hidden: true }));
}

const use = () => h("li", {}, h("div", { class: "share" }, h("span")), h("span", { class: "muted" }));
