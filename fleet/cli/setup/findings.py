"""What `fleet doctor` finds on this machine and in Redis: gathered here, judged in `checks`.

Every gatherer returns plain values and turns what it could not find out into None. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import psutil

from fleet.cli.setup.apis import ApiFacts, ask_apis
from fleet.cli.setup.ask_checks import recent_asks
from fleet.cli.setup.cache_checks import cache_counts
from fleet.cli.setup.context_checks import read_documents
from fleet.cli.setup.diagnosis_checks import read_diagnoses
from fleet.cli.setup.grade_checks import graded
from fleet.cli.setup.key_checks import KeyFacts, key_facts
from fleet.cli.setup.lesson_checks import known_lessons
from fleet.cli.setup.redis_facts import BRANCH, RedisFacts, redis_servers
from fleet.cli.setup.stalls import recent_stalls
from fleet.cli.setup.user_code import UserCode, load_all
from fleet.cli.setup.wait_checks import read_waits
from fleet.cli.shadow import shadow
from fleet.config import TOOLS, KeySettings, Settings, ToolSettings, config_path, home_path
from fleet.economy.bill.export import trouble_of
from fleet.economy.contexts.told import ContextBoard
from fleet.engine.admission.gates import read_waiting
from fleet.engine.asking.recent import RecentAsk
from fleet.engine.operations.waits import Standings
from fleet.errors import KeyMissing
from fleet.lessons import Lesson
from fleet.roster.graded import GradeFacts
from fleet.signals.crew import Trouble, stray, troubles_of
from fleet.signals.diagnosis.finding import Diagnosis
from fleet.signals.money.cached import CacheRow
from fleet.signals.neighbours import look_for_strangers
from fleet.signals.recorder import split_reports
from fleet.signals.view import EventView
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import state_url
from fleet.store.private.two_redis import two_redis
from fleet.store.running.brokers import each
from fleet.vault import account_of, source_of
from fleet.vault.age import overdue_keys
from fleet.vault.choice import tool_source_of
from fleet.vault.exchange import SHADOWS
from fleet.workers.bot.quiet import reporting

#: Celery settings that Fleet's promises rest on, read from the app in force.
CELERY_KEYS = (
    "task_acks_late", "task_reject_on_worker_lost", "worker_prefetch_multiplier", "task_default_priority",
    "broker_url", "broker_transport", "broker_transport_options", "worker_pool",
    "task_serializer", "result_serializer", "accept_content",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file that holds a secret: whether it is there, its permission bits and its size."""

    exists: bool
    mode: int = 0
    size_bytes: int = 0

    @property
    def private(self) -> bool:
        """True when only its owner may read it."""
        return self.mode & 0o077 == 0


@dataclass(frozen=True, slots=True)
class HostFacts:
    """This machine: limits of the process, the state folder, secrets' places, a foreign `fleet` nearby."""

    open_files: int
    variables: frozenset[str]
    files: Mapping[Path, FileFacts]
    config: Path | None
    home: Path
    home_filesystem: str | None
    home_free_bytes: int
    shadow: Path | None = None
    #: Variables by which frameworks are let tell their vendors what bots do.
    reports: tuple[str, ...] = ()
    #: Permission bits of the state folder; None: it is not there.
    home_mode: int | None = None
    #: Why calls cannot be exported to where the settings say; None: they can.
    export_trouble: str | None = None
    #: Of providers whose key neither a variable nor `api_key_file` holds: where it comes from, and what is wrong there.
    key_sources: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    #: Keys that are due to be replaced, and for how many seconds.
    keys_due: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the checks look at, beside the settings themselves."""

    redis: tuple[RedisFacts, ...]
    host: HostFacts
    celery: Mapping[str, Any] | None
    code: Mapping[UserCode, str | None] = field(default_factory=dict)
    #: What to say of another fleet in the same Redis.
    neighbour: str | None = None
    stalls: tuple[EventView, ...] = ()
    #: What is wrong with the workers that live; None: none does, or nobody knows.
    crew: tuple[Trouble, ...] | None = None
    #: What the APIs said of each provider and model.
    apis: Mapping[tuple[str, str], ApiFacts] = field(default_factory=dict)
    lessons: tuple[Lesson, ...] = ()
    #: What kept answers of deterministic kinds have done.
    cache: tuple[CacheRow, ...] = ()
    #: Why tasks wait; None: nobody knows.
    waits: Standings | None = None
    #: What is wrong with the fleet at work, worst first; None: nobody knows.
    diagnoses: tuple[Diagnosis, ...] | None = None
    #: Documents that tasks share; None: nobody knows.
    documents: ContextBoard | None = None
    #: The newest of them.
    asks: tuple[RecentAsk, ...] = ()
    grades: GradeFacts = field(default_factory=GradeFacts)
    #: Scopes and delegations.
    keys: KeyFacts = field(default_factory=KeyFacts)


def gather(settings: Settings, *, call: bool = False) -> Findings:
    """Look at Redis, this host, the Celery app, the users' functions and the APIs. Starts the embedded Redis when none
    is configured.

    Args:
        settings: The configuration.
        call: Make one real call per provider and model, too.
    """
    return replace(_local(settings), apis=ask_apis(settings, call=call))


def _local(settings: Settings) -> Findings:
    servers = redis_servers(settings)
    # Celery works its settings out of the URLs in force; a broker beside the main one stops nothing else.
    lost = any(server.error for server in servers if not server.role.startswith(BRANCH))
    host, code = host_facts(settings), load_all(settings)
    if lost:
        return Findings(servers, host, None, code)
    stalls, lessons = recent_stalls(settings), known_lessons(settings)
    return Findings(
        servers,
        host,
        celery_facts(),
        code,
        _neighbour(settings),
        stalls,
        crew(settings),
        lessons=lessons,
        cache=cache_counts(settings),
        waits=read_waits(settings),
        diagnoses=read_diagnoses(settings),
        keys=key_facts(settings),
        documents=read_documents(settings),
        asks=recent_asks(settings),
        grades=graded(settings),
    )


def crew(settings: Settings) -> tuple[Trouble, ...] | None:
    """Return what is wrong with the living workers, and with what waits where nobody takes it; None: none lives."""
    timeout_s = settings.redis.socket_timeout_s
    with closing(connect(state_url(settings), timeout_s=timeout_s)) as state:
        now_s = float(state.time()[0])
        living, _ = split_reports(cast("dict[bytes, bytes]", state.hgetall(keys.workers())), now_s=now_s)
    with two_redis(settings) as both:
        waiting = read_waiting(both.broker, settings.pools)
    astray = [stray(pool, living, settings) for pool, row in zip(settings.pools, waiting, strict=True) if row.total]
    found = (*filter(None, astray), *troubles_of(living, settings, now_s=now_s))
    return found if living or found else None


def _neighbour(settings: Settings) -> str | None:
    with two_redis(settings) as both:
        return look_for_strangers({both.state, *each(both.broker)}, settings)


def celery_facts() -> dict[str, Any]:
    """Return the Celery settings that matter for losing tasks."""
    from fleet.engine.app import app
    from fleet.engine.transport.leases import LEASE_S

    return {**{key: app.conf.get(key) for key in CELERY_KEYS}, "lease_s": LEASE_S}


def host_facts(settings: Settings) -> HostFacts:
    """Return what this machine allows and how well it keeps secrets."""
    home, config = home_path(), config_path()
    several = [key for provider in settings.providers.values() for key in provider.keys.values()]
    tables: list[KeySettings | ToolSettings] = [*settings.providers.values(), *several, *settings.tools.values()]
    secrets = [key.api_key_file for key in tables if key.api_key_file]
    exchanges = [provider.exchange for provider in settings.providers.values() if provider.exchange is not None]
    names = {name for exchange in exchanges for name in SHADOWS.get(exchange.grant, ())}
    names |= {name for name in (*(key.api_key_env for key in tables), settings.alerts.webhook_env) if name}
    existing = next(folder for folder in (home, *home.parents) if folder.is_dir())
    return HostFacts(
        home_mode=_file(home).mode if home.is_dir() else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        variables=frozenset(name for name in names if os.environ.get(name, "").strip()),
        files={path: _file(path) for path in (*secrets, *([config] if config else []))},
        config=config,
        home=home,
        home_filesystem=_filesystem(existing),
        home_free_bytes=shutil.disk_usage(existing).free,
        shadow=shadow(),
        key_sources=key_sources(settings),
        reports=tuple(reporting(os.environ)),
        keys_due=overdue_keys(settings, time.time()),
        export_trouble=None if settings.bill.export is None else trouble_of(settings.bill.export),
    )


def key_sources(settings: Settings) -> dict[str, tuple[str, str | None]]:
    """Ask where keys come from that no variable and no `api_key_file` holds; return what is wrong there, if anything.

    Those that need none have no place here.
    """
    found: dict[str, tuple[str, str | None]] = {}
    sources = {}
    for name, provider in settings.providers.items():
        models = [model for pool in settings.pools for called, model in settings.calls_of(pool) if called == name]
        needs = bool(provider.keys) or (provider.needs_key if not models else any(map(provider.needs_key_for, models)))
        for label in provider.labels:
            key = provider.key_at(label)
            if not (key.api_key_env or key.api_key_file) and (needs or key.key_settings):
                model = next(filter(provider.needs_key_for, models), "")
                sources[account_of(name, label)] = source_of(name, settings, model, label)
    for name, tool in settings.tools.items():
        if tool.api_key_secret or tool.api_key_vault:
            sources[f"{TOOLS}/{name}"] = tool_source_of(name, settings)
    for name, source in sources.items():
        try:
            source.current()
        except KeyMissing as error:
            found[name] = source.where, str(error)
        else:
            found[name] = source.where, None
    return found


def _file(path: Path) -> FileFacts:
    try:
        status = path.stat()
    except OSError:
        return FileFacts(exists=False)
    return FileFacts(exists=True, mode=status.st_mode & 0o777, size_bytes=status.st_size)


def _filesystem(folder: Path) -> str | None:
    """Type of the file system that `folder` lies on: that of the longest mount point above it."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return None
    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    found = ((len(mount.mountpoint), mount.fstype) for mount in mounts if mount.mountpoint in above)
    return max(found, default=(0, None))[1]
