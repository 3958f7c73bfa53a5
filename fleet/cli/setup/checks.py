"""The checks of `fleet doctor`: pure functions over the settings and gathered facts. No I/O.

A check that fails says that tasks, money or a secret can be lost as things stand; a warning says that something
will be slower, dearer or blinder than it needs to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from fleet.cli.setup.api_checks import api_checks
from fleet.cli.setup.ask_checks import ask_checks
from fleet.cli.setup.cache_checks import cache_checks
from fleet.cli.setup.check import Check, fail, ok, warn
from fleet.cli.setup.context_checks import context_checks
from fleet.cli.setup.diagnosis_checks import alert_checks, diagnosis_checks
from fleet.cli.setup.findings import Findings, HostFacts
from fleet.cli.setup.grade_checks import grade_checks
from fleet.cli.setup.key_checks import key_checks
from fleet.cli.setup.lesson_checks import lesson_checks
from fleet.cli.setup.payout_checks import payout_checks
from fleet.cli.setup.pool_checks import pool_checks, provider_checks, tool_checks, unused_tables
from fleet.cli.setup.redis_checks import home_disk, home_filesystem, redis_checks
from fleet.cli.setup.stalls import stall_checks
from fleet.cli.setup.wait_checks import wait_checks
from fleet.config import Settings
from fleet.models import Priority
from fleet.open_files import files_for, slots_that_fit
from fleet.quoting import counted, quote
from fleet.signals.crew import Trouble
from fleet.store.address import Address

#: Seconds under which a result may be gone before a person comes back to a stopped run.
SHORT_EXPIRY_S = 3600
#: What takes the place of the transport when Sentinels watch the broker.
SENTINEL_TRANSPORT = "fleet.engine.transport.sentinel:Transport"
#: What the Celery app must say so that a lost worker loses no task and an urgent task overtakes.
CELERY_MUST: Mapping[str, Any] = {
    "broker_transport": "fleet.engine.transport.channel:Transport",
    "worker_pool": "fleet.engine.process.pool:SlotPool",
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "task_default_priority": int(Priority.NORMAL),
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
}


def check_all(settings: Settings, facts: Findings) -> list[Check]:
    """Run every check, in the order in which a person would repair things."""
    found: list[Check] = []
    for server in facts.redis:
        found += redis_checks(server)
    found.append(alone(settings, facts.neighbour))
    if any(server.embedded for server in facts.redis):
        found += [home_disk(facts.host), home_filesystem(facts.host)]
    found += [check for name in settings.providers for check in provider_checks(name, settings, facts.host)]
    found += [check for name in settings.tools for check in tool_checks(name, settings, facts.host)]
    found += api_checks(settings, facts.apis, today=datetime.now(UTC).date())
    found += [check for name in settings.pools for check in pool_checks(name, settings, facts.code)]
    found += [
        *unused_tables(settings),
        result_expiry(settings),
        config_file(settings, facts.host),
        slots(settings),
        open_files(settings, facts.host),
        core_dumps(settings),
        state_folder(facts.host),
        own_name(facts.host),
        *framework_reports(settings, facts.host),
        bill_export(settings, facts.host),
        flower_address(settings),
        *celery_checks(facts.celery),
        *stall_checks(facts.stalls),
        *crew_checks(facts.crew),
        *key_checks(settings, facts.keys),
        *wait_checks(facts.waits),
        *context_checks(facts.documents),
        *diagnosis_checks(facts.diagnoses),
        *alert_checks(settings, facts.host.variables),
        *lesson_checks(settings, facts.lessons),
        *ask_checks(facts.asks),
        *grade_checks(settings, facts.grades),
        *cache_checks(settings, facts.cache),
        *payout_checks(settings, facts.redis),
    ]
    return found


def alone(settings: Settings, neighbour: str | None) -> Check:
    name = "redis: one fleet for each prefix"
    if neighbour is None:
        return ok(name, f"redis.prefix {quote(settings.redis.prefix)}")
    found, _, advice = neighbour.rpartition("; ")
    return fail(name, found, f"{advice[:1].upper()}{advice[1:]}.")


def result_expiry(settings: Settings) -> Check:
    found = f"{settings.results.expires_s} s"
    if settings.results.expires_s >= SHORT_EXPIRY_S:
        return ok("results: expiry", found)
    advice = "Set results.expires_s to an hour or more: a run resumed later pays again for what has expired."
    return warn("results: expiry", found, advice)


def framework_reports(settings: Settings, host: HostFacts) -> Iterator[Check]:
    """Yield whether agent frameworks tell their vendors what bots do, where a pool may run one."""
    if not any(pool.function or pool.agent for pool in settings.pools.values()):
        return
    name = "frameworks: reports to vendors"
    if host.reports:
        advice = f"Unset {' and '.join(host.reports)} where the workers start, unless that is what you want."
        yield warn(name, f"let by {' and '.join(host.reports)}: prompts and answers go to a vendor", advice)
    else:
        yield ok(name, "off: workers keep OpenAI's Agents SDK and LangSmith from sending prompts and answers")


def config_file(settings: Settings, host: HostFacts) -> Check:
    name = "fleet.toml: permissions"
    if host.config is None:
        return ok(name, "no fleet.toml")
    file = host.files[host.config]
    urls = [url.get_secret_value() for url in (settings.redis.url, settings.redis.state_url) if url]
    if file.private or not any(Address.parse(url).password for url in urls):
        return ok(name, f"{host.config}, mode {file.mode:03o}")
    advice = f"chmod 600 {host.config}, or give the URL in FLEET_REDIS__URL: others can read the Redis password."
    return fail(name, f"{host.config}, mode {file.mode:03o}, holds a password", advice)


def slots(settings: Settings) -> Check:
    total = settings.slots_per_process * settings.worker.processes
    found = (
        f"{counted(total, 'slot')} in {counted(settings.worker.processes, 'process', 'processes')} "
        f"for {counted(settings.bots, 'bot')}"
    )
    if total >= settings.bots:
        return ok("worker: slots", found)
    return warn("worker: slots", found, "Raise worker.slots or worker.processes: not all bots can work at once.")


def open_files(settings: Settings, host: HostFacts) -> Check:
    needed, fit = files_for(settings.slots_per_process), slots_that_fit(host.open_files)
    found = f"{host.open_files} allowed, about {needed} needed by a worker process"
    if fit is None or fit >= settings.slots_per_process:
        return ok("worker: open files", found)
    advice = f"Workers start with {fit} slots instead: let `ulimit -Hn` be {needed * 2} or more where they start."
    return warn("worker: open files", found, advice)


def core_dumps(settings: Settings) -> Check:
    name = "safety: core dumps"
    if not settings.safety.core_dumps:
        return ok(name, "off in workers and Flower; gdb and py-spy need root there")
    advice = "Set safety.core_dumps = false when you have found what you look for."
    return warn(name, "on: a dump or a debugger of this user shows keys and prompts", advice)


def state_folder(host: HostFacts) -> Check:
    name, mode = "safety: state folder", host.home_mode
    if mode is None:
        return ok(name, f"{host.home}: not there yet")
    if mode & 0o077:
        advice = f"chmod 700 {host.home}: passwords, logs and Redis' data are in there."
        return fail(name, f"{host.home} has mode {mode:03o}: others can look in", advice)
    return ok(name, f"{host.home}, mode {mode:03o}")


def own_name(host: HostFacts) -> Check:
    name, found = "worker: module fleet", host.shadow
    if found is None:
        return ok(name, "ours")
    return fail(name, str(found), "Rename it: `celery -A fleet` would run it in place of Fleet.")


def bill_export(settings: Settings, host: HostFacts) -> Check:
    name, place = "bill: export", settings.bill.export
    if place is None:
        return ok(name, "off")
    if host.export_trouble is None:
        return ok(name, f"{place}; lines name tenants, and `fleet forget` rewrites those of its own host")
    return fail(
        name, f"{place}: {host.export_trouble}", "Let workers write there, or name another folder: no call is exported."
    )


def flower_address(settings: Settings) -> Check:
    name, address = "flower: address", settings.flower.address
    if address in ("127.0.0.1", "localhost", "::1"):
        return ok(name, address)
    return warn(name, address, "Put a TLS proxy before it: password and task arguments are readable.")


#: What is checked about the workers as a crew, and what is said when it is in order.
_CREW = {"pools": "each is served", "inbox": "served", "names": "all differ", "settings": "alike", "releases": "one"}


def crew_checks(crew: tuple[Trouble, ...] | None) -> Iterator[Check]:
    """Yield the checks of the living workers as a crew; none when none lives."""
    for about, what in _CREW.items():
        name, lines = f"workers: {about}", [trouble.line for trouble in crew or () if trouble.about == about]
        for line in lines:
            found, _, advice = line.partition("; ")
            yield warn(name, found, f"{advice[:1].upper()}{advice[1:]}.")
        if crew is not None and not lines:
            yield ok(name, what)


def celery_checks(conf: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield the checks of the Celery settings in force, which another module may have overridden."""
    if conf is None:
        yield warn("celery: settings", "not read", "Make Redis answer first.")
        return
    sentinels = str(conf.get("broker_url")).startswith("sentinel://")
    for key, expected in CELERY_MUST.items():
        is_transport = sentinels and key == "broker_transport"
        yield _celery(key, conf.get(key), SENTINEL_TRANSPORT if is_transport else expected)
    options = conf.get("broker_transport_options") or {}
    yield _celery("broker_transport_options.visibility_timeout", options.get("visibility_timeout"), conf["lease_s"])
    yield _celery("broker_transport_options.priority_steps", options.get("priority_steps"), [int(p) for p in Priority])


def _celery(key: str, found: object, expected: object) -> Check:
    found = list(found) if isinstance(found, (tuple, set, range)) else found
    if found == expected:
        return ok(f"celery: {key}", repr(found))
    advice = f"Remove what overrides it: Fleet needs {expected!r}, or tasks get lost or run out of order."
    return fail(f"celery: {key}", repr(found), advice)
