"""A process's keys: another one is used by the next call; a source that is away is outlived for a while."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.config import ProviderSettings, Settings, ToolSettings
from fleet.errors import KeyMissing, VaultAway
from fleet.store import vault_keys
from fleet.store.client import Store
from fleet.vault import Envelope, Keyring, Secret, key_fingerprint
from fleet.vault.sources import EnvelopeKey, FileKey
from tests.vault.played_source import PlayedSource

LIMIT = "acme/m/default"


@dataclass
class Vault(PlayedSource):
    """As a vault is: it gives what lies there."""

    value: str = field(default="one", repr=False)
    reads: int = 0

    def current(self) -> Secret:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return Secret(self.value, "1")


def test_another_value_is_taken_within_five_minutes_and_told_once() -> None:
    vault = Vault()

    async def work() -> None:
        ring = vault.ring()
        held = await ring.hold("acme", "m")
        taken: list[str] = []
        held.takers.append(taken.append)
        vault.value = "two"
        await vault.passes(ring, 299)
        assert (vault.reads, held.value, vault.turns) == (1, "one", [])
        await vault.passes(ring, 302)
        assert (held.value, taken, vault.turns) == ("two", ["two", "two"], ["two"])

    asyncio.run(work())


def test_a_vault_that_is_away_for_ten_minutes_is_not_noticed_and_for_twenty_lets_calls_wait() -> None:
    vault = Vault()

    async def work() -> None:
        ring = vault.ring()
        held = await ring.hold("acme", "m")
        await vault.passes(ring, 150)
        vault.error = VaultAway("expected an answer, got none")
        await vault.passes(ring, 600)
        assert ring.standing(LIMIT) is None and held.value == "one"
        vault.error = None
        await vault.passes(ring, 10)
        assert vault.turns == [], "nothing has changed"
        vault.error = VaultAway("expected an answer, got none")
        await vault.passes(ring, 1200)
        wait = ring.standing(LIMIT)
        assert wait is not None and (wait.cause, wait.about) == ("key", "[providers.acme]")
        assert wait.opens_at is not None and vault.now_s < wait.opens_at <= vault.now_s + 5
        assert "expected an answer" in wait.told and "one" not in wait.told.split()
        vault.error = None
        await vault.passes(ring, 6)
        assert ring.standing(LIMIT) is None and vault.turns == ["one"], "what waits is opened"

    asyncio.run(work())


def test_it_serves_for_max_stale_and_no_longer() -> None:
    vault = Vault()

    async def work() -> None:
        ring = vault.ring()
        await ring.hold("acme", "m")
        vault.error = VaultAway("away")
        await vault.passes(ring, 900)
        assert ring.standing(LIMIT) is None
        await vault.passes(ring, 2)
        assert ring.standing(LIMIT) is not None

    asyncio.run(work())


def test_the_next_key_is_read_when_it_starts_and_asked_for_when_the_one_before_is_revoked() -> None:
    @dataclass
    class Ahead(Vault):
        refusals: int = 0

        def current(self) -> Secret:
            super().current()
            serves = "two" if self.refusals or self.now_s >= 1030 else "one"
            return Secret(serves, next_at=None if serves == "two" else time.time() + 1030 - self.now_s)

        def refuse(self) -> bool:
            self.refusals += 1
            return self.refusals == 1

    async def work() -> None:
        vault = Ahead()
        ring = vault.ring()
        held = await ring.hold("acme", "m")
        await vault.passes(ring, 28)
        assert (held.value, vault.reads) == ("one", 1)
        await vault.passes(ring, 4)
        assert held.value == "two", "and not five minutes later"
        early = Ahead()
        ring = early.ring()
        held = await ring.hold("acme", "m")
        revoked = {f"acme|{held.fingerprint}": early.now_s + 3}
        await early.passes(ring, 2, revoked)
        assert (held.value, early.refusals) == ("one", 0), "it is not yet"
        await early.passes(ring, 2, {f"acme|{held.fingerprint}": early.now_s})
        assert held.value == "two" and held.wait is None

    asyncio.run(work())


def test_a_process_that_starts_while_the_vault_is_away_waits_and_one_without_a_key_is_refused() -> None:
    vault = Vault(error=VaultAway("away"))

    async def work() -> None:
        ring = vault.ring()
        held = await ring.hold("acme", "m")
        assert held.value == "" and ring.standing(LIMIT) is not None
        vault.error = None
        await vault.passes(ring, 6)
        assert (held.value, ring.standing(LIMIT), vault.turns) == ("one", None, ["one"])
        vault.error = KeyMissing("none there")
        with pytest.raises(KeyMissing, match="none there"):
            await vault.ring().hold("acme", "m")

    asyncio.run(work())


def test_a_refused_key_is_read_again_at_once_by_one_of_all_who_were_refused() -> None:
    vault = Vault()

    async def work() -> None:
        ring = vault.ring()
        held = await ring.hold("acme", "m")
        vault.now_s += 30
        assert not await ring.renewed(LIMIT, "one"), "it is still the one"
        vault.value, vault.reads = "two", 0
        assert not await ring.renewed(LIMIT, "one"), "it was read within this second"
        vault.now_s += 2
        assert await asyncio.gather(*(ring.renewed(LIMIT, "one") for _ in range(50))) == [True] * 50
        assert (vault.reads, held.value) == (1, "two")
        await vault.passes(ring, 1)
        assert vault.turns == ["two"], "breakers and gates hear of it all the same"

    asyncio.run(work())


def test_a_revoked_key_stops_with_the_next_look_and_its_successor_goes() -> None:
    vault = Vault()
    revoked = {f"acme|{key_fingerprint('acme', 'one')}": 1000.0}

    async def work() -> None:
        ring = vault.ring()
        held = await ring.hold("acme", "m")
        await vault.passes(ring, 1, revoked)
        wait = ring.standing(LIMIT)
        assert wait is not None and "is revoked" in wait.told and vault.reads == 2, (
            "its source is asked for another one"
        )
        vault.value = "two"
        await vault.passes(ring, 300, revoked)
        assert (held.value, ring.standing(LIMIT), vault.turns) == ("two", None, ["two"])

    asyncio.run(work())


def test_a_suspended_key_waits_until_it_is_resumed_and_another_one_of_its_provider_goes(redis_url: str) -> None:
    vault = Vault()

    async def work() -> None:
        ring, store = vault.ring(), Store(redis_url)
        await ring.hold("acme", "m")
        await ring.hold("acme", "m", "team-b")
        try:
            for name, told in ((b"key acme", '{"stage": "suspended"}'), (b"key \xff", "[]"), (b"key acme/team-b", "{")):
                await store.command("HSET", vault_keys.unusual(), name, told)
            await ring.load(store)
            wait = ring.standing(LIMIT)
            assert wait is not None and wait.advice == "run `fleet keys resume acme`"
            assert ring.standing("acme/m/team-b") is None
            await vault.passes(ring, 1)
            await store.command("HSET", vault_keys.unusual(), "key acme", '{"stage": "resumed"}')
            await ring.load(store)
            await vault.passes(ring, 1)
            assert (ring.standing(LIMIT), vault.turns) == (None, ["one"]), "what waits for it hears of it"
        finally:
            await store.command("DEL", vault_keys.unusual())
            await store.close()

    asyncio.run(work())


def test_a_key_that_is_to_be_revoked_goes_until_then_and_its_source_is_asked_for_another_one_at_once() -> None:
    vault = Vault()
    revoked = {f"acme|{key_fingerprint('acme', 'one')}": 1060.0}

    async def work() -> None:
        ring, other = vault.ring(), vault.ring()
        held, _ = await ring.hold("acme", "m"), await other.hold("acme", "m")
        await vault.passes(ring, 1, revoked)
        assert ring.standing(LIMIT) is None, "its source has no other one yet"
        vault.value = "two"
        await vault.passes(ring, 70, revoked)
        assert ring.standing(LIMIT) is not None and held.value == "one"
        await vault.passes(other, 1, revoked)
        assert other.standing(LIMIT) is None, "it has heard of the two at once"

    asyncio.run(work())


def test_a_changed_file_is_used_within_a_look_and_an_unchanged_one_is_not_read(tmp_path: Path) -> None:
    path, vault = tmp_path / "key", Vault()
    path.write_text("one")
    path.chmod(0o600)

    async def work() -> None:
        settings = Settings(providers={"acme": ProviderSettings(kind="openai", api_key_file=path)})
        ring = Keyring(settings, clock=lambda: vault.now_s, now_s=lambda: vault.now_s)
        held = await ring.hold("acme", "m")
        assert held.source == FileKey(path)
        await vault.passes(ring, 2000)
        assert ring.standing(LIMIT) is None, "a file that is as it was is never stale"
        path.write_text("two!")
        await vault.passes(ring, 1)
        assert (held.value, vault.turns) == ("two!", ["two!"])
        path.unlink()
        await vault.passes(ring, 890)
        assert ring.standing(LIMIT) is None and held.value == "two!"
        await vault.passes(ring, 20)
        assert ring.standing(LIMIT) is not None

    asyncio.run(work())


def test_no_repr_shows_a_key() -> None:
    async def work() -> None:
        held = await Vault(value="sk-canary").ring().hold("acme", "m")
        assert "sk-canary" not in f"{held!r} {held.secret!r}"

    asyncio.run(work())


def test_one_of_several_keys_that_its_source_lacks_waits_and_serves_as_soon_as_it_is_there(tmp_path: Path) -> None:
    settings = Settings(providers={"acme": ProviderSettings.model_validate({"kind": "openai", "keys": ["a", "b"]})})
    envelope = Envelope(tmp_path / "home")
    envelope.add("acme/a", "one")
    vault = Vault()

    async def work() -> None:
        ring = Keyring(
            settings, source=lambda name, _, model, label: EnvelopeKey(f"{name}/{label}", envelope),
            clock=lambda: vault.now_s, now_s=lambda: vault.now_s,
        )  # fmt: skip
        first = await ring.hold("acme", "m", "a", others_may_serve=True)
        second = await ring.hold("acme", "m", "b", others_may_serve=True)
        assert (first.value, second.value) == ("one", "") and first.fingerprint == key_fingerprint("acme", "one")
        assert ring.standing("acme/m/a") is None
        wait = ring.standing("acme/m/b")
        assert wait is not None and wait.about == "[providers.acme]" and "fleet keys add acme/b" in wait.words
        envelope.add("acme/b", "two")
        await vault.passes(ring, 2)
        assert ring.standing("acme/m/b") is None and second.value == "two" and vault.turns == ["two"]
        with pytest.raises(KeyMissing):
            await ring.hold("acme", "m", "c")

    asyncio.run(work())


def test_a_version_that_is_to_serve_later_serves_from_its_time_on_or_once_the_one_before_is_refused(
    tmp_path: Path,
) -> None:
    vault = Vault()
    envelope = Envelope(tmp_path / "home", clock=lambda: vault.now_s)
    envelope.add("acme", "one")
    envelope.add("acme", "two", old_until=2010.0, starts_at=2000.0)
    settings = Settings(providers={"acme": ProviderSettings(kind="openai")})

    async def work() -> None:
        rings = [
            Keyring(
                settings, source=lambda *_: EnvelopeKey("acme", envelope, clock=lambda: vault.now_s),
                clock=lambda: vault.now_s, now_s=lambda: vault.now_s,
            )
            for _ in range(2)
        ]  # fmt: skip
        held = [await ring.hold("acme", "m") for ring in rings]
        assert [one.value for one in held] == ["one", "one"]
        assert await rings[0].renewed(LIMIT, "one") and held[0].value == "two", "at once, right after it was read"
        await vault.passes(rings[0], 400)
        assert held[0].value == "two", "and it stays, whatever is read again"
        vault.now_s = 1999.0
        await rings[1].look({}, vault.turn)
        assert held[1].value == "one"
        await vault.passes(rings[1], 2)
        assert held[1].value == "two"
        book = envelope.read()
        assert [one.state(1500.0) for one in book.versions] == ["draining", "ahead"]

    asyncio.run(work())


def test_a_tools_key_is_read_again_and_one_that_is_missing_waits(tmp_path: Path) -> None:
    path = tmp_path / "key"
    table = ToolSettings.model_validate({"base_url": "https://api.example.com", "api_key_file": str(path)})
    vault = Vault()

    async def work() -> None:
        ring = Keyring(Settings(tools={"search": table}), clock=lambda: vault.now_s, now_s=lambda: vault.now_s)
        held = await ring.hold_tool("search")
        taken: list[str] = []
        held.takers.append(taken.append)
        assert held.value == "" and held.failure is not None
        assert (wait := ring.standing("tools/search/default")) is not None and wait.about == "[tools.search]"
        path.touch(0o600)
        path.write_text("one")
        await vault.passes(ring, 2)
        assert ring.standing("tools/search/default") is None and taken == ["one"]
        path.write_text("two")
        assert await ring.renewed("tools/search/default", "one"), "a 401 finds it at once"
        assert taken == ["one", "two"]

    asyncio.run(work())
