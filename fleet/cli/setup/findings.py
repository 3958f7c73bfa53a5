"""What `fleet doctor` finds on this machine and in Redis: gathered here, judged in `checks`.

Every gatherer returns plain values and turns what it could not find out into None. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import psutil
import redis

from fleet.cli.setup.apis import ApiFacts, ask_apis
from fleet.cli.setup.ask_checks import recent_asks
from fleet.cli.setup.cache_checks import cache_counts
from fleet.cli.setup.context_checks import read_documents
from fleet.cli.setup.diagnosis_checks import read_diagnoses
from fleet.cli.setup.grade_checks import graded
from fleet.cli.setup.key_checks import KeyFacts, key_facts
from fleet.cli.setup.lesson_checks import known_lessons
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
from fleet.errors import FleetError, KeyMissing
from fleet.lessons import Lesson
from fleet.roster.graded import GradeFacts
from fleet.signals.crew import Trouble, stray, troubles_of
from fleet.signals.diagnosis.finding import Diagnosis
from fleet.signals.money.cached import CacheRow
from fleet.signals.neighbours import look_for_strangers
from fleet.signals.recorder import split_reports
from fleet.signals.view import EventView
from fleet.store import keys
from fleet.store.address import Address
from fleet.store.client import connect, masked
from fleet.store.private.embedded import broker_url, state_url
from fleet.store.private.server import bundled_program
from fleet.store.private.written import Release
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
class RedisFacts:
    """One Redis server, as its own INFO and CONFIG describe it. None: it would not say."""

    role: str
    place: str
    embedded: bool = False
    local: bool = True
    tls: bool = False
    password: bool = True
    error: str | None = None
    release: Release | None = None
    program: str | None = None
    aof: bool | None = None
    appendfsync: str | None = None
    snapshots: bool | None = None
    writes_ok: bool = True
    maxmemory_bytes: int = 0
    used_memory_bytes: int = 0
    eviction: str | None = None
    pubsub_buffer_bytes: int | None = None
    clock_skew_s: float = 0.0
    worker_clocks: Mapping[str, float] = field(default_factory=dict)
    suspects: int = 0


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
    servers = _redis_servers(settings)
    lost = any(server.error for server in servers)  # Celery works its settings out of the URLs in force
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
    with closing(connect(broker_url(settings), timeout_s=timeout_s)) as broker:
        waiting = read_waiting(broker, settings.pools)
    astray = [stray(pool, living, settings) for pool, row in zip(settings.pools, waiting, strict=True) if row.total]
    found = (*filter(None, astray), *troubles_of(living, settings, now_s=now_s))
    return found if living or found else None


def _neighbour(settings: Settings) -> str | None:
    urls = dict.fromkeys((broker_url(settings), state_url(settings)))
    with ExitStack() as opened:
        clients = (opened.enter_context(connect(url, timeout_s=settings.redis.socket_timeout_s)) for url in urls)
        return look_for_strangers(clients, settings)


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


def _redis_servers(settings: Settings) -> tuple[RedisFacts, ...]:
    if settings.redis.state_url is None or settings.redis.state_url == settings.redis.url:
        return (_redis("redis", settings),)
    return _redis("broker", settings), _redis("state", settings)


def _redis(role: str, settings: Settings) -> RedisFacts:
    configured = settings.redis.state_url if role == "state" else settings.redis.url
    place = masked(configured.get_secret_value()) if configured else "embedded"
    try:
        url = state_url(settings) if role == "state" else broker_url(settings)
        return redis_facts(url, role=role, embedded=configured is None, timeout_s=settings.redis.socket_timeout_s)
    except (FleetError, redis.RedisError, OSError) as error:
        return RedisFacts(role=role, place=place, error=str(error))


def redis_facts(url: str, *, role: str, embedded: bool, timeout_s: float) -> RedisFacts:
    """Ask one Redis server about itself.

    Raises:
        redis.RedisError: When it does not answer.
    """
    where = Address.parse(url)
    client = connect(url, timeout_s=timeout_s)
    try:
        info, skew_s = {_text(k): _text(v) for k, v in dict(client.info()).items()}, _skew_s(client)
        config, clocks = _config(client), _worker_clocks(client)
        suspects = int(client.hlen(keys.suspects()))
    finally:
        client.close()
    return RedisFacts(
        role=role,
        place="embedded" if embedded else masked(url),
        embedded=embedded,
        local=where.path is not None or where.host in ("localhost", "127.0.0.1", "::1"),
        tls=where.tls is not None,
        password=bool(where.password),
        release=_release(info),
        program=_program(info) if embedded else None,
        aof=bool(int(info["aof_enabled"])) if "aof_enabled" in info else None,
        appendfsync=config.get("appendfsync"),
        snapshots=bool(config["save"]) if "save" in config else None,
        writes_ok="err" not in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")),
        maxmemory_bytes=int(info.get("maxmemory", 0)),
        used_memory_bytes=int(info.get("used_memory", 0)),
        eviction=info.get("maxmemory_policy"),
        pubsub_buffer_bytes=_pubsub_buffer(config.get("client-output-buffer-limit")),
        clock_skew_s=skew_s,
        worker_clocks=clocks,
        suspects=suspects,
    )


def _release(info: Mapping[str, Any]) -> Release:
    """Return what the server says it is; Valkey names a version of Redis too, for old clients."""
    kind = "Valkey" if "valkey_version" in info else "Redis"
    return Release.parse(kind, str(info[f"{kind.lower()}_version"]))


def _program(info: Mapping[str, Any]) -> str | None:
    """Return the path of the server's program, or `bundled`."""
    program = info.get("executable")
    return "bundled" if program and Path(program) == bundled_program() else program


def _skew_s(client: redis.Redis) -> float:
    """Seconds that Redis' clock is ahead of ours, against the middle of the round trip."""
    before = time.time()
    seconds, micros = client.time()
    return float(seconds + micros / 1e6 - (before + time.time()) / 2)


def _worker_clocks(client: redis.Redis) -> dict[str, float]:
    """Return by how many seconds each living worker's clock is ahead of Redis; none on a Redis that has no reports."""
    rows = cast("dict[bytes, bytes]", client.hgetall(keys.workers()))
    return {row.name: row.clock_ahead_s for row in split_reports(rows, now_s=client.time()[0])[0]}


def _config(client: redis.Redis) -> dict[str, str]:
    """CONFIG GET of what we need; empty where the server forbids CONFIG, as hosted ones do."""
    found: dict[str, str] = {}
    for name in ("appendfsync", "save", "client-output-buffer-limit"):
        try:
            answer = dict(client.config_get(name))
        except redis.ResponseError:
            return {}
        found.update({_text(k): _text(v) for k, v in answer.items()})
    return found


def _pubsub_buffer(value: str | None) -> int | None:
    """Hard limit of `client-output-buffer-limit pubsub`, in bytes; 0 is no limit."""
    words = (value or "").split()
    return int(words[words.index("pubsub") + 1]) if "pubsub" in words else None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
