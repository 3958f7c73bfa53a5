"""The keys of a worker process, in its memory alone: read again when they may have changed, and when one is refused.

A key whose source is away serves for `max_stale_s` since it was last seen there, and one that expires until then; then
its calls wait. What expires is had anew early, at a random moment, so that a fleet does not ask all at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field

from fleet import config
from fleet.config import Settings
from fleet.errors import ExchangeFailed, KeyMissing, VaultAway
from fleet.quoting import brief
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.vault.book import account_of
from fleet.vault.choice import source_of, tool_source_of
from fleet.vault.fingerprints import key_fingerprint
from fleet.vault.revocations import earliest, hear_revoked, hear_suspended
from fleet.vault.sources import HoldsNext, KeySource, Secret
from fleet.waits import MOST_TOLD, UNUSUAL, Wait

#: Seconds between two looks of a worker at its files and at revoked keys: a revoked one stops within two.
LOOK_EVERY_S = 1.0
#: Seconds until a source that failed is asked again, and from one reading for a refused key to the next.
AGAIN_S, REREAD_S = 5.0, 1.0
#: Seconds until a task that waits for a key looks again.
PROBE_S = 5.0
#: Shares of its life after which a token is had anew: a random one between them, so that half of the time is left for
#: an endpoint that is away.
EARLY, LATE = 0.5, 0.75
#: Share of its life, and seconds at most, before its end from when a token pays for no new call: that may be under way.
EDGE, MOST_EDGE_S = 0.1, 5.0
#: Seconds until a failed exchange is tried again: doubled each time up to the second, and spread.
FIRST_RETRY_S, MOST_RETRY_S = 1.0, 30.0
#: Seconds that a look waits for a slow source before it goes on to the other keys, and to those that are revoked.
LOOK_WAITS_S = 0.5
#: Seconds between two looks at least, where a token lives for seconds only.
LEAST_LOOK_S = 0.1

logger = logging.getLogger("fleet.worker")


@dataclass(slots=True, eq=False)
class HeldKey:
    """One key of a provider, or of a tool, in a process. Its secret is in no repr.

    Attributes:
        provider: Its name under [providers]; `tools/NAME`: that of a tool.
        label: By which it is told apart from others of its provider.
        source: Where it comes from.
        secret: As last read; None: never yet.
        seen_s: When it was last known to be there still (monotonic seconds).
        read_s: When its source was last read.
        next_s: When its source is to be read again, whatever its mark says.
        mark: Of the source, at the last reading.
        failure: Why the last reading gave nothing.
        failures: Readings that gave nothing, in a row (count).
        until_s: When it expires for new calls (monotonic seconds); None: it does not.
        forced_s: When one that was refused as soon as it was had was last had anew.
        look: Reads it, where that takes longer than a look.
        wait: Why calls with it wait; None: they may go. Read before every call.
        kept_in: Where it comes from, in words.
        takers: Are given another value as soon as it is known.
        limits: `provider/model/key`, whose calls it pays for.
        told, is_told_to_wait: What the last one who was told of a turn has heard.
    """

    provider: str
    source: KeySource
    secret: Secret | None = None
    seen_s: float = 0.0
    read_s: float = 0.0
    next_s: float = 0.0
    mark: Hashable = None
    failure: KeyMissing | None = None
    failures: int = 0
    until_s: float | None = None
    forced_s: float = -math.inf
    look: asyncio.Task[None] | None = None
    wait: Wait | None = None
    takers: list[Callable[[str], None]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    label: str = config.KEY_LABEL
    kept_in: str = ""
    told: str = field(default="", repr=False)
    is_told_to_wait: bool = False
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def value(self) -> str:
        """The key; empty: none is needed, or none is known yet."""
        return "" if self.secret is None else self.secret.value

    @property
    def fingerprint(self) -> str:
        """Of the key, or of what it was had for."""
        return key_fingerprint(self.provider, self.known_by)

    @property
    def known_by(self) -> str:
        """What tells it from others; empty as `value` is."""
        return "" if self.secret is None else self.secret.known_by

    @property
    def name(self) -> str:
        """What people know it by."""
        return account_of(self.provider, self.label)


#: Hears of a provider whose key is another one now, or may be used again.
OnTurn = Callable[[HeldKey], Awaitable[None]]


class Keyring:
    """All keys of a process. Lives on its loop.

    Args:
        settings: Providers, and how long a key serves.
        source: Finds the source of a provider's key: (its name, the settings, a model, the key's label).
        clock: Seconds that only grow.
        now_s: Unix time in seconds, as Redis has it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: Callable[[str, Settings, str, str], KeySource] = source_of,
        clock: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = CLOCK.now_s,
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._now_s = now_s
        self._held: dict[tuple[str, str, bool], HeldKey] = {}
        self._by_limit: dict[str, HeldKey] = {}
        #: Hears of each exchange: whose, and whether it gave a token.
        self.on_exchange: Callable[[str, bool], None] = lambda provider, is_good: None
        #: Heard so far: what Redis tells no more stays revoked.
        self._revoked: Mapping[str, float] = {}
        self._suspended: frozenset[str] = frozenset()

    async def hold(
        self, provider: str, model: str, label: str = config.KEY_LABEL, *, others_may_serve: bool = False
    ) -> HeldKey:
        """Return the key for a model, read with the first call; while a vault is away it is one that has to wait.

        Args:
            provider: Its name.
            model: What is asked with it.
            label: Of the key, where the provider has several.
            others_may_serve: One that its source does not give has to wait, too.

        Raises:
            KeyMissing: Its source gives none, and is there.
        """
        needs = self._settings.provider_named(provider).needs_key_for(model)
        place = provider, label, needs
        if place not in self._held:
            source = self._source(provider, self._settings, model, label)
            held = await self._first_read(HeldKey(provider, source, label=label))
            if held.failure is not None and not (others_may_serve or isinstance(held.failure, VaultAway)):
                raise held.failure
            self._held[place] = held
        return self._bound(self._held[place], f"{provider}/{model}/{label}")

    async def hold_tool(self, name: str) -> HeldKey:
        """Return the key of a tool, read with the first call; one that its source does not give has to wait."""
        place = f"{config.TOOLS}/{name}", config.KEY_LABEL, True
        if place not in self._held:
            self._held[place] = await self._first_read(HeldKey(place[0], tool_source_of(name, self._settings)))
        return self._bound(self._held[place], f"{place[0]}/{config.KEY_LABEL}")

    async def _first_read(self, held: HeldKey) -> HeldKey:
        await self._read(held)
        self._judge(held)
        held.told, held.is_told_to_wait = held.known_by, held.wait is not None
        return held

    def _bound(self, held: HeldKey, limit: str) -> HeldKey:
        held.limits.append(limit)
        self._by_limit[limit] = held
        return held

    @property
    def held(self) -> list[HeldKey]:
        """All keys of this process."""
        return list(self._held.values())

    def standing(self, limit: str) -> Wait | None:
        """Return why calls under a limit wait for their key; None: they need not. Never waits."""
        held = self._by_limit.get(limit)
        if held is None:
            return None
        if held.until_s is not None and held.wait is None and self._clock() >= held.until_s:
            self._judge(held)
            if held.wait is not None:  # whoever asks hears it before the next look does
                held.is_told_to_wait = True
                logger.warning("key_waits key=%s: %s", held.name, held.wait.words)
        return held.wait

    async def renewed(self, limit: str, refused: str) -> bool:
        """True when a key that its provider refuses is no longer the one to use: its source is read at once."""
        held = self._by_limit.get(limit)
        if held is None:
            return False
        if held.value == refused and self._may_have_another(held):
            if held.until_s is not None and not held.reading.locked():
                age_s = self._clock() - held.read_s
                logger.warning("token_refused key=%s age_s=%.0f: exchanging again", held.name, age_s)
            await self._read(held)
            self._judge(held)
        return held.value != refused and held.wait is None

    def _may_have_another(self, held: HeldKey) -> bool:
        """True unless the source of a refused key was read just now, and is as it was."""
        if isinstance(held.source, HoldsNext) and held.source.refuse():
            return True  # a version that is to serve later serves now
        now, mark = self._clock(), held.source.mark()
        if held.reading.locked() or now - held.read_s >= REREAD_S:
            return True
        if held.until_s is not None and now - held.forced_s >= AGAIN_S:
            held.forced_s = now  # a token may be refused as soon as it is had: once, and no more
            return True
        return mark is not None and mark != held.mark

    async def look(self, revoked: Mapping[str, float], on_turn: OnTurn) -> None:
        """Read again what may have changed, and tell of keys that are others now, or may be used again.

        Args:
            revoked: From when keys may be used no more, by `provider|fingerprint`.
            on_turn: See above.
        """
        touched = {name for name, at_s in revoked.items() if at_s < self._revoked.get(name, math.inf)}
        self._revoked = earliest(self._revoked, revoked)
        for held in list(self._held.values()):
            is_touched = f"{held.provider}|{held.fingerprint}" in touched
            if is_touched and self._is_revoked(held) and isinstance(held.source, HoldsNext):
                held.source.refuse()
            if is_touched or self._is_due(held):
                await self._start_reading(held)
            self._judge(held)
            await self._tell(held, on_turn)

    async def _start_reading(self, held: HeldKey) -> None:
        """Read a key's source, and go on after a moment: a slow one keeps nobody from hearing what is revoked."""
        if held.look is None or held.look.done():
            held.look = asyncio.create_task(self._read(held))
        await asyncio.wait({held.look}, timeout=LOOK_WAITS_S)

    async def _tell(self, held: HeldKey, on_turn: OnTurn) -> None:
        waits, waited = held.wait is not None, held.is_told_to_wait
        is_another = held.known_by != held.told
        held.told, held.is_told_to_wait = held.known_by, waits
        if held.wait is not None and not waited:
            logger.warning("key_waits key=%s: %s", held.name, held.wait.words)
        if is_another or (waited and not waits):
            logger.info("key_taken key=%s fingerprint=%s", held.name, held.fingerprint)
            await on_turn(held)

    async def keep(self, store: Store, on_turn: OnTurn) -> None:
        """Look once a second, for ever; while Redis is away, with the revocations heard last."""
        while True:
            try:
                revoked, self._suspended = await asyncio.gather(hear_revoked(store), hear_suspended(store))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, keys are read again all the same
                logger.warning("revoked keys not heard error=%s", type(error).__name__)
                revoked = dict(self._revoked)
            await self.look(revoked, on_turn)
            await asyncio.sleep(min(LOOK_EVERY_S * random.uniform(0.7, 1.2), self._until_due()))

    def _until_due(self) -> float:
        """Return the seconds until a token is to be had anew, `LEAST_LOOK_S` at least."""
        due_s = min((held.next_s for held in self._held.values() if held.until_s is not None), default=math.inf)
        return max(LEAST_LOOK_S, due_s - self._clock())

    async def load(self, store: Store) -> None:
        """Hear of revoked keys before the first call.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        self._revoked, self._suspended = await asyncio.gather(hear_revoked(store), hear_suspended(store))
        for held in self._held.values():
            self._judge(held)

    def _is_due(self, held: HeldKey) -> bool:
        now, mark = self._clock(), held.source.mark()
        if mark is not None and mark == held.mark and held.failure is None:
            held.seen_s = now  # what it was read from is as it was
            return False
        return now >= held.next_s or (mark is not None and mark != held.mark)

    async def _read(self, held: HeldKey) -> None:
        """Read a key's source, one reading at a time; who comes while it is read has what it gave."""
        if held.reading.locked():
            async with held.reading:
                return
        async with held.reading:
            mark = held.source.mark()
            try:
                held.kept_in = await asyncio.to_thread(lambda: held.source.where)
                secret = await asyncio.to_thread(held.source.current)
            except KeyMissing as error:
                if held.failure is None:
                    logger.warning("key_not_read key=%s: %s", held.name, error)
                held.failure, held.failures, held.mark = error, held.failures + 1, mark
                if isinstance(error, ExchangeFailed):
                    self.on_exchange(held.provider, False)
            else:
                if held.failure is not None:
                    logger.info("key_read key=%s after=%d failures", held.name, held.failures)
                held.secret, held.seen_s, held.failure, held.mark = secret, self._clock(), None, mark
                held.failures, held.until_s = 0, _ends_at(self._clock(), secret.lives_s)
                for take in held.takers:
                    take(secret.value)
                if secret.lives_s is not None:
                    self.on_exchange(held.provider, True)
            held.read_s = self._clock()
            held.next_s = held.read_s + self._until_next(held)

    def _until_next(self, held: HeldKey) -> float:
        if isinstance(held.failure, ExchangeFailed):
            most_s = min(MOST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(held.failures - 1, 10))
            return max(random.uniform(0.5, 1.0) * most_s, min(held.failure.after_s or 0.0, 10 * MOST_RETRY_S))
        if held.failure is not None:
            return AGAIN_S
        if held.secret is not None and held.secret.lives_s is not None:
            return held.secret.lives_s * random.uniform(EARLY, LATE)
        refresh_s = self._settings.vault.refresh_s
        if held.secret is not None and held.secret.next_at is not None:  # by the clock of this machine
            return min(refresh_s, max(LEAST_LOOK_S, held.secret.next_at - time.time()))
        return refresh_s

    def _is_revoked(self, held: HeldKey) -> bool:
        return self._revoked.get(f"{held.provider}|{held.fingerprint}", math.inf) <= self._now_s()

    def _judge(self, held: HeldKey) -> None:
        """Decide whether calls with a key may go."""
        told, advice = None, ""
        if held.until_s is not None:
            is_stale = self._clock() >= held.until_s
        else:
            is_stale = held.failure is not None and self._clock() - held.seen_s > self._settings.vault.max_stale_s
        if held.secret is None or is_stale:
            told = "its token has expired, and the next one is on its way"
            if held.failure is not None:
                found = held.failure.wait()
                told, advice = found.told, found.advice
        elif held.value and self._is_revoked(held):
            told = f"key {held.fingerprint} is revoked: {_instead(held)}"
        elif held.name in self._suspended:
            told, advice = f"{held.name} rests, for {UNUSUAL}", f"run `fleet keys resume {held.name}`"
        if told is None:
            held.wait = None
            return
        held.wait = Wait(
            "key", self._now_s() + PROBE_S, about_key(held.provider), brief(told, MOST_TOLD), probe_every_s=PROBE_S,
            advice=advice,
        )  # fmt: skip


def _ends_at(now: float, lives_s: float | None) -> float | None:
    return None if lives_s is None else now + lives_s - min(EDGE * lives_s, MOST_EDGE_S)


def _instead(held: HeldKey) -> str:
    if held.until_s is not None:
        return f"let [providers.{held.provider}.exchange] name another identity"
    return f"run `fleet keys rotate {held.name}`"


def about_key(provider: str) -> str:
    """Return what tasks are told to wait for that wait for a key of a provider, whichever, or of a tool."""
    kind, _, tool = provider.partition("/")
    return f"[{kind}.{tool}]" if tool else f"[providers.{provider}]"
