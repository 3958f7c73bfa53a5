// The fleet as the page knows it: asks for it, and puts what changed into what it had.

export const COLUMNS = ["state", "load", "completions", "failed", "calls_failed", "per_hour", "last_at", "cost_usd_micros", "tokens", "mean_ms", "evidence", "test", "bad_percent", "avoids_percent", "slow_percent", "until", "alike"];
export const STATES = ["idle", "busy", "probation", "quarantined", "leaving"];
export const TESTS = ["", "bad answers", "avoids work", "slow", "wrong answers", "answers otherwise"];

const SILENT_S = 10; // as the finding that a worker is lost has it

/** Workers that still report: what the last report of a dead one says is over. */
export const speaking = ({ resources, at }) => resources.workers.filter((worker) => at - worker.at <= SILENT_S);

/** What a pool does with its tasks, in a word or two; `why`: what they wait for. Paused is not called closed elsewhere. */
export function gateOf(pool, why, view) {
  if (!pool.is_open) return pool.gate.replace(/, for .*/, "").replace(/^closed$/, "paused");
  if (!pool.workers || !speaking(view).length) return "no worker";
  return why ? `waits: ${why}` : "open";
}

/** Bots in columns: `names[i]`, `pools[i]` and `columns.load[i]` are of one bot. */
export class Bots {
  constructor({ names, columns, reasons }) {
    this.names = [];
    this.pools = [];
    this.pooled = [...new Set(names.map(([pool]) => pool))];
    this.poolAt = []; // place of a bot's pool among these
    for (const [pool, first, number] of names) {
      if (number === undefined) this.#add(pool, first);
      else for (let i = first; i < first + number; i++) this.#add(pool, `${pool}-${String(i).padStart(3, "0")}`);
    }
    this.columns = Object.fromEntries(COLUMNS.map((name, c) => [name, columns[c]]));
    this.reasons = new Map(reasons); // row -> why that bot is out
    this.enough = 0; // evidence that takes a bot out
  }

  #add(pool, name) {
    this.pools.push(pool);
    this.poolAt.push(this.pooled.indexOf(pool));
    this.names.push(name);
  }

  get size() {
    return this.names.length;
  }

  /** Count the bots in a state, by pool. */
  countByPool(state) {
    const counts = new Map();
    const number = STATES.indexOf(state);
    this.columns.state.forEach((one, i) => one === number && counts.set(this.pools[i], (counts.get(this.pools[i]) ?? 0) + 1));
    return counts;
  }

  apply({ rows, columns, reasons }) {
    COLUMNS.forEach((name, c) => {
      const column = this.columns[name];
      rows.forEach((row, i) => (column[row] = columns[c][i]));
    });
    for (const [row, why] of reasons) why ? this.reasons.set(row, why) : this.reasons.delete(row);
  }
}

/** What a server that does not answer, or a session that is over, looks like here. */
export class Unreachable extends Error {}

export class Store {
  /** `also`: what is asked for along with the state, now and then; {name, everyMs, told}, told gets each answer. */
  constructor(base, also) {
    this.base = base;
    this.also = also.map((one) => ({ ...one, askedAt: -Infinity }));
    this.version = "";
    this.view = null;
    this.bots = null;
  }

  /** Ask for the state; returns {trouble, age_s, every_ms, may_act, isNew}. */
  async poll() {
    const due = this.also.filter((one) => performance.now() - one.askedAt >= one.everyMs);
    for (const one of due) one.askedAt = performance.now();
    const query = new URLSearchParams([["since", this.version], ...due.map((one) => ["also", one.name])]);
    const { view, also, ...about } = await this.get(`/state?${query}`);
    for (const one of due) also?.[one.name] && one.told(also[one.name]);
    if (view) {
      const { bots, changed, ...rest } = view;
      if (bots) this.bots = new Bots(bots);
      else this.bots.apply(changed);
      this.bots.enough = rest.health.enough;
      this.view = rest;
      this.version = rest.version;
    }
    return { ...about, isNew: Boolean(view) };
  }

  bot(name) {
    return this.get(`/bot/${encodeURIComponent(name)}`);
  }

  async get(path) {
    // With the origin: a relative address fails when the page's own holds a login (http://fleet:...@host).
    return this.#read(fetch(location.origin + this.base + path, { redirect: "manual", signal: AbortSignal.timeout(15000) }));
  }

  async act(action) {
    const headers = { "Content-Type": "application/json", "X-XSRFToken": document.body.dataset.token };
    return this.#read(fetch(`${location.origin}${this.base}/act`, { method: "POST", headers, body: JSON.stringify(action), redirect: "manual", signal: AbortSignal.timeout(15000) }));
  }

  async #read(asked) {
    let reply;
    try {
      reply = await asked;
    } catch {
      throw new Unreachable("Flower does not answer");
    }
    if (reply.type === "opaqueredirect" || reply.status === 401) throw new Unreachable("The login is over: reload the page");
    const body = await reply.json().catch(() => ({ error: `Flower answered ${reply.status}` }));
    if (!reply.ok) throw new Error(body.error || `Flower answered ${reply.status}`);
    return body;
  }
}
