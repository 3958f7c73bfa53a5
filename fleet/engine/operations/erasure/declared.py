"""What each Redis key holds of a task's words or a tenant's name, and what becomes of it: one line per key.

A key that is not named here fails a test: whoever adds one must say what erasure does about it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: `nothing`: neither words of a task nor a tenant's name; ids of tasks, which are random or digests, may lie there.
Holds = Literal["nothing", "words", "tenant", "both"]
#: `erased`: by `fleet forget`. `renamed`: the tenant becomes a pseudonym. `expires`: by itself. `told`: the command
#: says how many there are, and that nobody can tell whose. `stays`: there is nothing to erase.
Becomes = Literal["erased", "renamed", "expires", "told", "stays"]


class Holding(NamedTuple):
    """One key.

    Args:
        holds: What of a task or tenant may lie there, in its name or in its value.
        becomes: Of that.
        how: How it is found, or why it need not be.
    """

    holds: Holds
    becomes: Becomes
    how: str = ""


def _none(*names: str) -> dict[str, Holding]:
    return {name: Holding("nothing", "stays") for name in names}


_MESSAGES = "what waits is walked through, as `fleet cancel` does"

#: Function of `fleet/store/keys` -> what its key holds.
STORE: dict[str, Holding] = {
    "lists": Holding("both", "erased", _MESSAGES),
    "parked": Holding("both", "erased", _MESSAGES),
    "over": Holding("both", "erased", "read whole: workers empty it within seconds"),
    "poison": Holding("both", "erased", "read whole: no release fills it any more"),
    "unacked": Holding("both", "erased", "by what runs: waited for or stopped; what was left behind is taken away"),
    "unreadable": Holding("both", "told", "no messages, so nobody can tell whose; `fleet forget` counts them"),
    "result": Holding("both", "erased", "by the tenant, id or metadata in it, in one walk through all keys"),
    "dead_letters": Holding("words", "erased", "error messages; by the body beside it"),
    "dead_letter_bodies": Holding("both", "erased", "each is read; one that was not kept is told"),
    "dead_letter_order": Holding("nothing", "erased", "with its letter"),
    "dead_letter_bytes": Holding("nothing", "stays", "a sum"),
    "limit_keys": Holding("tenant", "erased", "the shares of a tenant, by their key; notes of calls get the pseudonym"),
    "events": Holding("tenant", "erased", "all are read: 1,000"),
    "event_quiet": Holding("tenant", "erased", "by their key; live a day to a month"),
    "submitted": Holding("nothing", "erased", "with the result; its id is a digest of the idempotency key"),
    "passed_on": Holding("nothing", "erased", "with the result"),
    "followed": Holding("nothing", "erased", "with the result"),
    "follows": Holding("nothing", "erased", "with the result"),
    "paid": Holding("nothing", "expires", "with the results"),
    "revoked": Holding("nothing", "expires", "ids that must not start, for a week to a year"),
    "replayed": Holding("nothing", "expires", "with the dead letters"),
    "answers": Holding("nothing", "expires", "numbers made of answers: words cannot be read from them; newer push out"),
    "failures": Holding("nothing", "expires", "ids, bots and error types of the last 1,000"),
    "pool_failures": Holding("nothing", "expires", "ids, bots and error types of the last 1,000"),
    "former": Holding("nothing", "expires", "as the same keys of a pool; moved to them within a minute"),
    "bot_tasks": Holding("nothing", "expires", "ids of each bot's last four tasks"),
    **_none(
        "counted_pools", "pool_reaped", "pool_totals", "pool_recent", "put_out_before",
        "bots", "bot_leases", "bot_claims", "reaped", "quarantined", "quarantine_reasons", "probation", "health",
        "norms", "skills", "specialists", "totals", "bot_rows", "series", "sketch", "recent", "resources", "backlogs",
        "errors", "workers", "fleets", "limit", "bell", "waiting", "binding", "consumed", "consumed_looked",
        "unacked_index", "parked_order", "openings", "ends", "swept", "suspects", "epochs", "turn", "gate", "room",
        "unserved", "hold", "breaker", "answer_counts", "diversity_states", "diversity_leader", "remedies",
        "remedies_version", "lessons", "probe", "verdicts", "write_probe",
    ),
}  # fmt: skip

#: Function of `fleet/store/bill_keys.py` -> what its key holds.
MONEY: dict[str, Holding] = {
    "hour": Holding("tenant", "renamed", "by the names of rows; amounts stay"),
    "day": Holding("tenant", "renamed", "by the names of rows; amounts stay"),
    "unknown": Holding("tenant", "renamed", "each is read"),
    "reservations": Holding("tenant", "renamed", "the scopes of calls under way"),
    "lapsed": Holding("tenant", "renamed", "the same, of calls of unknown cost; lives a day"),
    "spent": Holding("tenant", "erased", "the tenant's own, by its key"),
    "budgets_live": Holding("tenant", "erased", "what was set for the tenant"),
    "budget_shares": Holding("tenant", "erased", "the tenant's own"),
    **_none("writer", "limits", "turn", "check_turn", "bots", "ever"),
}

#: Function of `fleet/store/erasure_keys.py` -> what its key holds.
ERASURE: dict[str, Holding] = {
    "chord_parts": Holding("both", "erased", "by the results in it; the body of such a chord is not called any more"),
    "salt": Holding("nothing", "expires", "a random secret, within a day"),
}

#: Function of `fleet/store/vault_keys.py` -> what its key holds.
VAULT: dict[str, Holding] = _none("revoked_keys", "scopes", "delegations", "revoked_delegations", "unusual", "usual")

#: Function of `fleet/store/context_keys.py` -> what its key holds.
CONTEXTS: dict[str, Holding] = {
    "documents": Holding("tenant", "erased", "those of the tenant; everybody's stay: `fleet context remove`"),
    "text": Holding("words", "erased", "with what is known of it"),
    "warmth": Holding("nothing", "stays"),
    "reads": Holding("nothing", "expires", "ids of documents, for two hours"),
    "read_totals": Holding("nothing", "stays"),
}

#: Function of `fleet/store/flow_keys.py` -> what its key holds. A flow's name is a digest of a tenant's.
FLOWS: dict[str, Holding] = {
    "flow": Holding("both", "erased", _MESSAGES),
    "old": Holding("both", "erased", _MESSAGES),
    **_none("has", "ring", "olds", "weights"),
}
#: Function of `fleet/store/schedule_keys.py` -> what its key holds.
SCHEDULES: dict[str, Holding] = _none("schedule", "done", "beats", "wanted")
#: Function of `fleet/store/cache_keys.py` -> what its key holds.
CACHE: dict[str, Holding] = {
    "kept_answers": Holding("both", "erased", "each is read, like a result; one may have served equal tasks as well"),
    **_none("kept_until", "kept_bytes", "asking", "twins"),
}

#: Function of `fleet/store/lane_keys.py` -> what its key holds.
LANES: dict[str, Holding] = {
    "batched": Holding(
        "both",
        "erased",
        "by the tenant in it, or once its task has a result; the vendor's files go when the batch ends",
    ),
    "lane_reads": Holding("nothing", "expires", "digests of how prompts begin, for three hours"),
    **_none("gathering", "gathered_limits", "jobs", "job", "job_tasks", "lane_turn", "lane_shut", "lane_times"),
}

#: Function of `fleet/store/answer_keys.py` -> what its key holds.
ASKS: dict[str, Holding] = {
    "recent_asks": Holding("nothing", "expires", "ids of members, numbers for answers, types of errors"),
    "asks": Holding("nothing", "expires", "models, and numbers for answers: which of them were the same"),
    "graded": Holding("nothing", "erased", "with the result"),
    "told": Holding("nothing", "expires", "ids of tasks, until a worker learns their grades"),
    **_none("grades", "classes", "doubted", "models", "told_turn", "ration", "rollouts", "rollout", "past_rollouts"),
}

#: Function of `fleet/store/job_keys.py` -> what its key holds.
JOBS: dict[str, Holding] = {
    "then": Holding("both", "erased", "each is read; it is gone once that task is queued"),
    **_none("job", "members", "order", "due", "live", "lost", "listed"),
}

#: Function of `fleet/store/payout_keys.py` -> what its key holds. Rows name payees and bots, never tenants or words.
PAYOUTS: dict[str, Holding] = {
    "earned_tasks": Holding("nothing", "expires", "ids of tasks and what each has earned, by `payouts.revocable_days`"),
    "earned_taken": Holding("nothing", "expires", "ids of tasks, and why what each earned was taken back; as long"),
    **_none(
        "earned_day", "earned_ever", "netted", "payouts", "open_payouts", "latest", "disk_mark", "parts", "addresses"
    ),
}
