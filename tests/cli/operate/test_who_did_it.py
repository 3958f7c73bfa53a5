"""Whoever acts on the fleet is named by an event, from a shell as on the page. A new command must say which it is."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
from collections.abc import Callable, Iterator
from getpass import getuser
from typing import Any, get_args

import click
import pytest
import redis

from fleet import config
from fleet.cli.main import COMMANDS
from fleet.dashboard import actions
from fleet.diversity import ClassState
from fleet.economy.contexts import documents
from fleet.engine.admission.gates import CLOSED, set_gate
from fleet.engine.answers.lessons import SharedLessons
from fleet.engine.operations import levers
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.lessons import Notebook
from fleet.roster import quarantine
from fleet.signals.unusual.alarms import Alarm, swap
from fleet.store import keys
from fleet.store.client import Store
from tests.cli.operate.test_dead import client, die, fleet
from tests.engine.operations.test_bad_bots import remember
from tests.engine.operations.test_story import queue
from tests.resilience.fleet_of_breakers import member

__all__ = ["client"]

API = "simulator/simulated-1"
TERMS = documents.id_of("the terms")
NOUNS = (
    "bots",
    "keys",
    "breakers",
    "budgets",
    "lessons",
    "pools",
    "limits",
    "diversity",
    "alerts",
    "context",
    "cache",
    "schedules",
    "job",
    "asks",
    "rollout",
)
#: Commands that only look.
LOOK = {
    "stats", "top", "why", "lanes", "events", "doctor", "simulate", "tasks list", "tasks show", "dead list",
    "dead show", "dead reasons", "bill unknown", "keys check", "scaling", "health", "tenants",
    *(f"payouts {verb}" for verb in ("due", "list", "report")),
    *(f"{noun} {verb}" for noun in NOUNS for verb in ("list", "show")),
}  # fmt: skip
#: Commands that change no running fleet: they submit tasks, start and end processes, write a file, send messages.
OTHER = {
    "acl apply", "demo", "up", "down", "submit", "ask", "run", "simulator", "init", "backup", "alerts test",
    "alerts watch",
}  # fmt: skip

#: Commands that act and are tried elsewhere, with what they need: `tests/cli/money/test_check.py`, and
#: `tests/cli/keys/test_commands.py`, which reads keys from stdin.
ELSEWHERE = {
    "bill check",
    "restore",
    "schedules pause",
    "schedules resume",
    "schedules run",
    "rollout start",
    "rollout stop",
    "rollout finish",
    "keys add",
    "keys rotate",
    "keys revoke",
    "keys passphrase",
    "keys delegate",
    "keys undelegate",
    "keys scope",
    "grade",
    *(f"payouts {verb}" for verb in ("prepare", "sign", "confirm", "send", "check", "void", "slip", "revoke", "key")),
}

Prepare = Callable[[redis.Redis], None]


def nothing(client: redis.Redis) -> None:
    pass


def known_bot(client: redis.Redis) -> None:
    client.zadd(keys.bots("research"), {"research-001": 0, "research-002": 0})


def out_bot(client: redis.Redis) -> None:
    known_bot(client)
    quarantine(client, "research", "research-001", by="health")


def closed_pool(client: redis.Redis) -> None:
    set_gate(client, keys.queue("research"), lowest=CLOSED)


def dead(client: redis.Redis) -> None:
    die(client, "t1", "t2")


def waiting(client: redis.Redis) -> None:
    queue(client, "t1")


def document(client: redis.Redis) -> None:
    documents.add(client, "the terms", name="terms", tokens=2)


def learnt_class(client: redis.Redis) -> None:
    remember(client, ClassState(pool="research", kind="chat"), 1000)


def throttled_key(client: redis.Redis) -> None:
    alarm = Alarm("key", "simulator", 1e9, 70, 700, stage="throttled", held={f"{API}/default": (-1, 140)})
    assert swap(client, alarm.field_name, b"", alarm)


def open_breaker(client: redis.Redis) -> None:
    async def fail() -> None:
        async with member(_url(), limit=f"{API}/default") as one:
            await one.open()

    asyncio.run(fail())


def lesson(client: redis.Redis) -> None:
    async def learn() -> None:
        store, notebook = Store(_url()), Notebook()
        shared = SharedLessons(store, notebook)
        notebook.learn(API, "temperature")
        await shared.close()
        await store.close()

    asyncio.run(learn())


def _url() -> str:
    url = config.current().redis.url
    assert url is not None
    return url.get_secret_value()


def a_job(client: redis.Redis) -> None:
    from fleet.engine.jobs.job import submit_job

    submit_job(["a", "b"], key="nightly")


#: Commands that act: what makes them have something to do, their arguments, and the event that tells of it.
ACT: dict[str, tuple[Prepare, str, str]] = {
    "job cancel": (a_job, "nightly --yes", "job_cancelled"),
    "job replay": (a_job, "nightly --yes", "job_replayed"),
    "job seal": (a_job, "nightly", "job_sealed"),
    "pools pause": (nothing, "research writing --for 10m", "pool_paused"),
    "pools resume": (closed_pool, "research", "pool_resumed"),
    "bots quarantine": (known_bot, "research-001 research-002 --reason odd", "bot_quarantined"),
    "bots release": (out_bot, "research-001", "bot_released"),
    "breakers reset": (open_breaker, API, "breaker_closed"),
    "limits reset-breaker": (open_breaker, API, "breaker_closed"),
    "lessons forget": (lesson, API, "lesson_forgotten"),
    "limits forget": (lesson, API, "lesson_forgotten"),
    "limits set": (nothing, f"{API} --rpm 100", "limit_changed"),
    "limits release": (nothing, API, "limit_released"),
    "budgets set": (nothing, "pool:research --usd-per-day 5", "budget_changed"),
    "budgets reset": (nothing, "pool:research", "budget_changed"),
    "diversity relearn": (learnt_class, "research chat", "diversity_relearnt"),
    "keys resume": (throttled_key, "simulator", "use_usual"),
    "cancel": (waiting, "t1", "task_cancelled"),
    "forget": (waiting, "--task t1 --yes", "words_erased"),
    "dead replay": (dead, "--all --yes", "dead_replayed"),
    "dead purge": (dead, "t1 t2", "dead_purged"),
    "cache clear": (nothing, "", "cache_cleared"),
    "context add": (nothing, __file__, "context_added"),
    "context remove": (document, TERMS, "context_removed"),
}
#: Other ways to say the same, which do something else.
ACT_TOO: list[tuple[str, Prepare, str, str]] = [
    ("limits set", nothing, f"{API} --reset", "limit_reset"),
    ("cancel", waiting, "--pool research --yes --running", "task_cancelled"),
    ("forget", waiting, "--tenant acme --yes", "words_erased"),
    ("dead replay", dead, "t1", "dead_replayed"),
    ("dead purge", dead, "--reason ProviderUnavailable --yes", "dead_purged"),
]


def leaves() -> Iterator[str]:
    """Yield each command as it is typed, those of groups too."""
    for name, (module, attribute, _) in COMMANDS.items():
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, click.Group):
            yield from (f"{name} {verb}" for verb in command.commands)
        else:
            yield name


def deeds() -> list[tuple[str, dict[str, str]]]:
    """Return what `fleet events` tells of who did what, the newest first."""
    events = json.loads(fleet("events", "--json").stdout)["events"]
    return [(event["name"], event["fields"]) for event in events if "host" in event["fields"]]


def test_every_command_is_known_to_act_or_not_to() -> None:
    known = [*LOOK, *OTHER, *ELSEWHERE, *ACT]
    assert sorted(leaves()) == sorted(known), "a new command: say in this file whether it acts, and with which event"


@pytest.mark.parametrize(
    ("command", "prepare", "arguments", "event"), [*((name, *rest) for name, rest in ACT.items()), *ACT_TOO]
)
def test_who_acts_from_a_shell_is_named_with_user_and_host(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, command: str, prepare: Prepare, arguments: str, event: str
) -> None:
    monkeypatch.setattr("fleet.engine.operations.levers.FRESH_S", 0.0)  # nobody else looks at the limits here
    prepare(client)
    fleet(*command.split(), *arguments.split())
    found = deeds()
    assert [name for name, _ in found] == [event], "one deed, one event"
    assert (found[0][1]["by"], found[0][1]["host"]) == (getuser(), socket.gethostname())


def test_what_was_done_is_said_and_nothing_is_told_where_nothing_was(client: redis.Redis) -> None:
    dead(client)
    fleet("dead", "replay", "--pool", "research", "--yes")
    assert deeds()[0][1].items() >= {"pool": "research", "reason": "all", "queued": "2"}.items()
    fleet("dead", "purge", "--all", "--yes")
    fleet("dead", "purge", "t1", code=1)
    fleet("pools", "resume", "research")
    known_bot(client)
    fleet("bots", "release", "research-001")
    fleet("lessons", "forget", API)
    assert len(deeds()) == 1
    fleet("cancel", "t1", "t2", "nobody")
    assert deeds()[0][1].items() >= {"tasks": "t1, t2", "ended": "2"}.items()
    fleet("cancel", "--pool", "research", "--metadata", "job=nightly", "--yes")
    assert deeds()[0][1].items() >= {"pool": "research", "chosen_by": "pool+metadata", "ended": "0"}.items()


#: What each action of the page does, and the event that tells of it.
PAGE: dict[str, tuple[Prepare, dict[str, object], str]] = {
    "pause": (nothing, {"pool": "research"}, "pool_paused"),
    "resume": (closed_pool, {"pool": "research"}, "pool_resumed"),
    "quarantine": (known_bot, {"bot": "research-001"}, "bot_quarantined"),
    "release": (out_bot, {"bot": "research-001"}, "bot_released"),
    "relearn": (learnt_class, {"pool": "research", "kind": "chat"}, "diversity_relearnt"),
    "resume_use": (throttled_key, {"kind": "key", "name": "simulator"}, "use_usual"),
    "cancel": (waiting, {"task": "t1"}, "task_cancelled"),
    "replay": (dead, {"everything": True}, "dead_replayed"),
    "purge": (dead, {"task": "t1"}, "dead_purged"),
    "cancel_job": (a_job, {"job": "nightly"}, "job_cancelled"),
    "replay_job": (a_job, {"job": "nightly"}, "job_replayed"),
    "seal_job": (a_job, {"job": "nightly"}, "job_sealed"),
}


def test_no_action_of_the_page_is_forgotten_here() -> None:
    verbs = {get_args(kind.model_fields["do"].annotation)[0] for kind in get_args(actions.Action)}
    assert verbs == set(PAGE)


@pytest.mark.parametrize("verb", PAGE)
def test_who_acts_on_the_page_is_named_as_it_logged_in(client: redis.Redis, verb: str) -> None:
    prepare, fields, event = PAGE[verb]
    prepare(client)
    actions.carry_out(actions.parse(json.dumps({"do": verb, **fields}).encode()), config.current(), by="anna")
    assert [(name, said["by"], said["host"]) for name, said in deeds()] == [(event, "anna", socket.gethostname())]


def test_the_events_of_many_name_some_of_them(client: redis.Redis) -> None:
    levers.note_cancelled(client, [f"t{number}" for number in range(1000)], {}, by="anna")
    assert deeds()[0][1]["tasks"] == "t0, t1, t2, t3, t4, t5, t6, t7 and 992 more"


def test_a_replay_that_is_broken_off_is_told_as_far_as_it_went(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead(client)
    replay = DeadLetterOffice.replay

    def stop_at_the_second(office: DeadLetterOffice, task_id: str, **options: Any) -> str:
        if task_id == "t1":  # the older one comes second
            raise KeyboardInterrupt
        return replay(office, task_id, **options)

    monkeypatch.setattr(DeadLetterOffice, "replay", stop_at_the_second)
    fleet("dead", "replay", "--all", "--yes", code=130)
    ((event, said),) = deeds()
    assert (event, said["queued"], said["by"]) == ("dead_replayed", "1", getuser())
