"""The checks of `fleet doctor`: pure functions over the settings and gathered facts. No I/O.

A check that fails says that tasks, money or a secret can be lost as things stand; a warning says that something
will be slower, dearer or blinder than it needs to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.cli.setup.check import Check
from fleet.cli.setup.findings import Findings, HostFacts, RedisFacts
from fleet.cli.setup.pool_checks import pool_checks, provider_checks, unused_tables
from fleet.config import Settings
from fleet.models import Priority
from fleet.quoting import counted
from fleet.store.address import Address
from fleet.store.written import OLDEST

#: Seconds between two clocks from which deadlines and reports become misleading.
MAX_SKEW_S = 1.0
#: Bytes of free disk under which the embedded Redis will soon stop taking writes.
LOW_DISK_BYTES = 1 << 30
#: Bytes that a client waiting for many results may be behind before Redis cuts it off (Redis' own default).
MIN_PUBSUB_BUFFER_BYTES = 32 << 20
#: Share of maxmemory from which Redis will soon refuse new tasks.
FULL_MEMORY = 0.8
#: Open files of a worker process beside one HTTP connection per slot: Redis, logs, modules.
SPARE_FILES = 256
#: Seconds under which a result may be gone before a person comes back to a stopped run.
SHORT_EXPIRY_S = 3600
VOLATILE_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})
REMOTE_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "fuse.sshfs", "9p"})
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
    if any(server.embedded for server in facts.redis):
        found += [home_disk(facts.host), home_filesystem(facts.host)]
    found += [check for name in settings.providers for check in provider_checks(name, settings, facts.host)]
    found += [check for name in settings.pools for check in pool_checks(name, settings, facts.code)]
    found += [
        *unused_tables(settings),
        result_expiry(settings),
        config_file(settings, facts.host),
        slots(settings),
        open_files(settings, facts.host),
        own_name(facts.host),
        flower_address(settings),
        *celery_checks(facts.celery),
    ]
    return found


# ---- Redis


def redis_checks(server: RedisFacts) -> Iterator[Check]:
    """Yield the checks of one Redis server; a server that does not answer has only the first."""
    yield reachable(server)
    if server.error is None:
        for check in (version, persistence, disk_writes, eviction, memory, exposure, pubsub_buffer, clock):
            yield check(server)


def reachable(server: RedisFacts) -> Check:
    name = f"{server.role}: reachable"
    if server.error is None:
        return Check(name, "ok", server.place)
    return Check(name, "fail", f"{server.place}: {server.error}", "Start it, or correct [redis] in fleet.toml.")


def version(server: RedisFacts) -> Check:
    name, text = f"{server.role}: version", f"{server.release}{f' ({server.program})' if server.program else ''}"
    if server.release is not None and any(oldest.covers(server.release) for oldest in OLDEST):
        return Check(name, "ok", text)
    wanted = " or ".join(f"{oldest} or newer" for oldest in OLDEST)
    return Check(name, "fail", text, f"Use {wanted}: the scripts need its commands.")


def persistence(server: RedisFacts) -> Check:
    name = f"{server.role}: persistence"
    if server.aof:
        fsync = server.appendfsync or "unknown"
        if fsync == "no":
            advice = "Set `appendfsync everysec`: a power cut may lose half a minute of tasks."
            return Check(name, "warn", "AOF, appendfsync no", advice)
        return Check(name, "ok", f"AOF, appendfsync {fsync}")
    if server.snapshots:
        return Check(name, "warn", "snapshots only", "Set `appendonly yes`: a crash loses all since the last snapshot.")
    if server.aof is None:
        return Check(name, "warn", "the server does not say", "Make sure that it keeps an append-only file.")
    return Check(name, "fail", "none", "Set `appendonly yes`: a restart of Redis loses every queued task.")


def disk_writes(server: RedisFacts) -> Check:
    name = f"{server.role}: last write to disk"
    if server.writes_ok:
        return Check(name, "ok", "succeeded")
    return Check(name, "fail", "failed", "Free disk space or repair the disk: Redis refuses writes until then.")


def eviction(server: RedisFacts) -> Check:
    name, policy = f"{server.role}: eviction", server.eviction or "unknown"
    if policy == "noeviction":
        return Check(name, "ok", policy)
    advice = "Set `maxmemory-policy noeviction`: with any other policy a full Redis deletes tasks and results."
    return Check(name, "fail" if server.maxmemory_bytes else "warn", policy, advice)


def memory(server: RedisFacts) -> Check:
    name, used = f"{server.role}: memory", f"{server.used_memory_bytes >> 20} MB used"
    if not server.maxmemory_bytes:
        return Check(name, "ok", f"{used}, no maxmemory")
    found = f"{used} of {server.maxmemory_bytes >> 20} MB"
    if server.used_memory_bytes < FULL_MEMORY * server.maxmemory_bytes:
        return Check(name, "ok", found)
    return Check(name, "warn", found, "Raise `maxmemory` or lower results.expires_s: a full Redis refuses tasks.")


def exposure(server: RedisFacts) -> Check:
    name = f"{server.role}: access"
    found = ", ".join(
        (
            "this host" if server.local else "over the network",
            "password" if server.password else "no password",
            "TLS" if server.tls else "no TLS",
        )
    )
    if server.local or (server.password and server.tls):
        return Check(name, "ok", found)
    if not server.password:
        return Check(name, "fail", found, "Set `requirepass` and put it in the URL: anyone can submit and read tasks.")
    return Check(name, "warn", found, "Use rediss:// unless the network is private: prompts and password are readable.")


def pubsub_buffer(server: RedisFacts) -> Check:
    name, limit = f"{server.role}: pub/sub buffer", server.pubsub_buffer_bytes
    if limit is None:
        return Check(name, "ok", "the server does not say")
    if limit == 0 or limit >= MIN_PUBSUB_BUFFER_BYTES:
        return Check(name, "ok", f"{limit >> 20} MB" if limit else "no limit")
    advice = "Set `client-output-buffer-limit pubsub 32mb 8mb 60`: producers waiting for many results are cut off."
    return Check(name, "warn", f"{limit >> 10} KB", advice)


def clock(server: RedisFacts) -> Check:
    name, found = f"{server.role}: clock", f"{server.clock_skew_s:+.3f} s against this host"
    if abs(server.clock_skew_s) <= MAX_SKEW_S:
        return Check(name, "ok", found)
    return Check(name, "warn", found, "Run NTP on both hosts: deadlines and queue times are wrong by this much.")


def home_disk(host: HostFacts) -> Check:
    found = f"{host.home_free_bytes / (1 << 30):.1f} GB free at {host.home}"
    if host.home_free_bytes >= LOW_DISK_BYTES:
        return Check("embedded Redis: disk", "ok", found)
    return Check("embedded Redis: disk", "warn", found, "Free space or set FLEET_HOME: a full disk stops all writes.")


def home_filesystem(host: HostFacts) -> Check:
    name, kind = "embedded Redis: file system", host.home_filesystem or "unknown"
    if kind in VOLATILE_FILESYSTEMS:
        return Check(name, "fail", kind, "Set FLEET_HOME to a real disk: a reboot loses every queued task.")
    if kind in REMOTE_FILESYSTEMS:
        return Check(name, "warn", kind, "Set FLEET_HOME to a local disk: locks and fsync are unreliable here.")
    return Check(name, "ok", kind)


# ---- the rest of the settings, and this host


def result_expiry(settings: Settings) -> Check:
    found = f"{settings.results.expires_s} s"
    if settings.results.expires_s >= SHORT_EXPIRY_S:
        return Check("results: expiry", "ok", found)
    advice = "Set results.expires_s to an hour or more: a run resumed later pays again for what has expired."
    return Check("results: expiry", "warn", found, advice)


def config_file(settings: Settings, host: HostFacts) -> Check:
    name = "fleet.toml: permissions"
    if host.config is None:
        return Check(name, "ok", "no fleet.toml")
    file = host.files[host.config]
    urls = [url.get_secret_value() for url in (settings.redis.url, settings.redis.state_url) if url]
    if file.private or not any(Address.parse(url).password for url in urls):
        return Check(name, "ok", f"{host.config}, mode {file.mode:03o}")
    advice = f"chmod 600 {host.config}, or give the URL in FLEET_REDIS__URL: others can read the Redis password."
    return Check(name, "fail", f"{host.config}, mode {file.mode:03o}, holds a password", advice)


def slots(settings: Settings) -> Check:
    total = settings.slots_per_process * settings.worker.processes
    found = (
        f"{counted(total, 'slot')} in {counted(settings.worker.processes, 'process', 'processes')} "
        f"for {counted(settings.bots, 'bot')}"
    )
    if total >= settings.bots:
        return Check("worker: slots", "ok", found)
    return Check(
        "worker: slots", "warn", found, "Raise worker.slots or worker.processes: not all bots can work at once."
    )


def open_files(settings: Settings, host: HostFacts) -> Check:
    needed = settings.slots_per_process + SPARE_FILES
    found = f"{host.open_files} allowed, about {needed} needed by a worker process"
    if host.open_files < 0 or host.open_files >= needed:  # -1 is no limit
        return Check("worker: open files", "ok", found)
    return Check("worker: open files", "fail", found, f"Run `ulimit -n {needed * 2}` before the workers start.")


def own_name(host: HostFacts) -> Check:
    advice = "Rename it: `celery -A fleet` would run it in place of Fleet." if host.shadow else ""
    return Check("worker: module fleet", "fail" if host.shadow else "ok", str(host.shadow or "ours"), advice)


def flower_address(settings: Settings) -> Check:
    name, address = "flower: address", settings.flower.address
    if address in ("127.0.0.1", "localhost", "::1"):
        return Check(name, "ok", address)
    return Check(name, "warn", address, "Put a TLS proxy before it: password and task arguments are readable.")


def celery_checks(conf: Mapping[str, Any] | None) -> Iterator[Check]:
    """Yield the checks of the Celery settings in force, which another module may have overridden."""
    if conf is None:
        yield Check("celery: settings", "warn", "not read", "Make Redis answer first.")
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
        return Check(f"celery: {key}", "ok", repr(found))
    advice = f"Remove what overrides it: Fleet needs {expected!r}, or tasks get lost or run out of order."
    return Check(f"celery: {key}", "fail", repr(found), advice)
