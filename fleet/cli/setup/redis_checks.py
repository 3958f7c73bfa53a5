"""The checks of `fleet doctor` that look at Redis, and at the disk under an embedded one. Pure, as all checks are."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.cli.setup.check import Check, fail, ok, warn
from fleet.cli.setup.findings import HostFacts
from fleet.cli.setup.redis_facts import RedisFacts
from fleet.quoting import counted
from fleet.store.clock import NAMED_FROM_S, told
from fleet.store.private.written import OLDEST

#: Seconds between two clocks from which deadlines and reports become misleading.
MAX_SKEW_S = 1.0
#: Bytes of free disk under which the embedded Redis will soon stop taking writes.
LOW_DISK_BYTES = 1 << 30
#: Bytes that a client waiting for many results may be behind before Redis cuts it off (Redis' own default).
MIN_PUBSUB_BUFFER_BYTES = 32 << 20
#: Share of maxmemory from which Redis will soon refuse new tasks.
FULL_MEMORY = 0.8
#: Workers named in one check (count).
WORKERS_NAMED = 5
VOLATILE_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})
REMOTE_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "fuse.sshfs", "9p"})


def redis_checks(server: RedisFacts) -> Iterator[Check]:
    """Yield the checks of one Redis server; a server that does not answer has only the first."""
    yield reachable(server)
    if server.error is None:
        for check in (version, persistence, disk_writes, eviction, memory, exposure, pubsub_buffer, clock):
            yield check(server)
        if server.worker_clocks:
            yield worker_clocks(server)
        yield from suspects(server)


def suspects(server: RedisFacts) -> Iterator[Check]:
    """Yield a check only when some wait: they are rare."""
    if server.suspects:
        found = f"{counted(server.suspects, 'task')} whose worker died while running wait to run apart"
        yield warn(
            f"{server.role}: suspects", found, "See that a worker runs: it finds out which of them, if any, kills."
        )


def reachable(server: RedisFacts) -> Check:
    name = f"{server.role}: reachable"
    if server.error is None:
        return ok(name, server.place)
    return fail(name, f"{server.place}: {server.error}", "Start it, or correct [redis] in fleet.toml.")


def version(server: RedisFacts) -> Check:
    name, text = f"{server.role}: version", f"{server.release}{f' ({server.program})' if server.program else ''}"
    if server.release is not None and any(oldest.covers(server.release) for oldest in OLDEST):
        return ok(name, text)
    wanted = " or ".join(f"{oldest} or newer" for oldest in OLDEST)
    return fail(name, text, f"Use {wanted}: the scripts need its commands.")


def persistence(server: RedisFacts) -> Check:
    name = f"{server.role}: persistence"
    if server.aof:
        fsync = server.appendfsync or "unknown"
        if fsync == "no":
            advice = "Set `appendfsync everysec`: a power cut may lose half a minute of tasks."
            return warn(name, "AOF, appendfsync no", advice)
        return ok(name, f"AOF, appendfsync {fsync}")
    if server.snapshots:
        return warn(name, "snapshots only", "Set `appendonly yes`: a crash loses all since the last snapshot.")
    if server.aof is None:
        return warn(name, "the server does not say", "Make sure that it keeps an append-only file.")
    return fail(name, "none", "Set `appendonly yes`: a restart of Redis loses every queued task.")


def disk_writes(server: RedisFacts) -> Check:
    name = f"{server.role}: last write to disk"
    if server.writes_ok:
        return ok(name, "succeeded")
    return fail(name, "failed", "Free disk space or repair the disk: Redis refuses writes until then.")


def eviction(server: RedisFacts) -> Check:
    name, policy = f"{server.role}: eviction", server.eviction or "unknown"
    if policy == "noeviction":
        return ok(name, policy)
    advice = "Set `maxmemory-policy noeviction`: with any other policy a full Redis deletes tasks and results."
    return (fail if server.maxmemory_bytes else warn)(name, policy, advice)


def memory(server: RedisFacts) -> Check:
    name, used = f"{server.role}: memory", f"{server.used_memory_bytes >> 20} MB used"
    if not server.maxmemory_bytes:
        return ok(name, f"{used}, no maxmemory")
    found = f"{used} of {server.maxmemory_bytes >> 20} MB"
    if server.used_memory_bytes < FULL_MEMORY * server.maxmemory_bytes:
        return ok(name, found)
    return warn(name, found, "Raise `maxmemory` or lower results.expires_s: a full Redis refuses tasks.")


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
        return ok(name, found)
    if not server.password:
        return fail(name, found, "Set `requirepass` and put it in the URL: anyone can submit and read tasks.")
    return warn(name, found, "Use rediss:// unless the network is private: prompts and password are readable.")


def pubsub_buffer(server: RedisFacts) -> Check:
    name, limit = f"{server.role}: pub/sub buffer", server.pubsub_buffer_bytes
    if limit is None:
        return ok(name, "the server does not say")
    if limit == 0 or limit >= MIN_PUBSUB_BUFFER_BYTES:
        return ok(name, f"{limit >> 20} MB" if limit else "no limit")
    advice = "Set `client-output-buffer-limit pubsub 32mb 8mb 60`: producers waiting for many results are cut off."
    return warn(name, f"{limit >> 10} KB", advice)


def clock(server: RedisFacts) -> Check:
    name, found = f"{server.role}: clock", f"{server.clock_skew_s:+.3f} s against this host"
    if abs(server.clock_skew_s) <= MAX_SKEW_S:
        return ok(name, found)
    return warn(name, found, "Run NTP on both hosts: deadlines and queue times are wrong by this much.")


def worker_clocks(server: RedisFacts) -> Check:
    off = {name: ahead_s for name, ahead_s in server.worker_clocks.items() if abs(ahead_s) >= NAMED_FROM_S}
    if not off:
        return ok("workers: clocks", f"{counted(len(server.worker_clocks), 'worker')}, all right")
    named = "; ".join(f"{name} is {told(ahead_s)}" for name, ahead_s in sorted(off.items())[:WORKERS_NAMED])
    more = f"; and {len(off) - WORKERS_NAMED:,} more" if len(off) > WORKERS_NAMED else ""
    advice = (
        "Run NTP there: Fleet goes by the clock of Redis, but logs, traces and a bot function's own times are wrong."
    )
    return warn("workers: clocks", named + more, advice)


def home_disk(host: HostFacts) -> Check:
    found = f"{host.home_free_bytes / (1 << 30):.1f} GB free at {host.home}"
    if host.home_free_bytes >= LOW_DISK_BYTES:
        return ok("embedded Redis: disk", found)
    return warn("embedded Redis: disk", found, "Free space or set FLEET_HOME: a full disk stops all writes.")


def home_filesystem(host: HostFacts) -> Check:
    name, kind = "embedded Redis: file system", host.home_filesystem or "unknown"
    if kind in VOLATILE_FILESYSTEMS:
        return fail(name, kind, "Set FLEET_HOME to a real disk: a reboot loses every queued task.")
    if kind in REMOTE_FILESYSTEMS:
        return warn(name, kind, "Set FLEET_HOME to a local disk: locks and fsync are unreliable here.")
    return ok(name, kind)
