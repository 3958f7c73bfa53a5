"""A client with the whole of Redis, but without a delegation, against real workers: how many tasks it gets answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet import config
from fleet.config.scopes import ScopeSettings
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import DELEGATION, NO_CANVAS, envelope, task_headers
from fleet.engine.messages.producer import fresh_id
from fleet.engine.outcomes.stored import read_result
from fleet.models import BotResult
from fleet.store import keys, vault_keys
from fleet.store.client import connect
from fleet.vault.delegation import Token, delegate
from fleet.vault.delegations import root_secret
from fleet.vault.signing import new_secret, unword
from fleet.vault.warrant import digest, seal, sign
from tests.every import every
from tests.keys.scopes import forged
from tests.waiting import wait_until
from tests.worker_process import REPO, WorkerProcess

WAIT_S = 60.0
TOML = """
[redis]
url = "{url}"
[worker]
slots = 8
[pools.research]
bots = 4
delegated = true
[pools.writing]
bots = 4
delegated = true
[pools.open]
bots = 4
[simulator]
latency_ms = 1
"""
#: Every way of submitting, under a delegation for `research`; prints the ids that must be answered.
PRODUCE = """
import asyncio, json
from celery import chain, chord, group
from fleet import submit_many, submit_task
s = submit_task.s
ids = [submit_task.delay("one", pool="research", metadata={"n": 1.5, "w": "\\u00e4\\ud83d\\ude00"}).id]
ids.append(submit_task.apply_async(("two",), {"pool": "research", "priority": "high"}, countdown=0.3).id)
ids.append(submit_task.delay("three", pool="research", idempotency_key="k", expires_at=4e9).id)
ids += submit_many([{"prompt": "four", "pool": "research"}, {"prompt": "five", "pool": "research"}])
async def ask():
    return (await submit_task.adelay("six", pool="research")).id
ids.append(asyncio.run(ask()))
three = chain(s("seven", pool="research"), s(pool="research"), s(pool="research")).apply_async()
ids += [three.id, three.parent.id, three.parent.parent.id]
both = group(s("eight", pool="research"), s("nine", pool="research")).apply_async()
ids += [one.id for one in both]
body = chord([s("ten", pool="research"), s("eleven", pool="open")], s(pool="research")).apply_async()
ids.append(body.id)
ids.append(submit_task.apply_async(("twelve",), {"pool": "open"}, link=s(pool="research").set(task_id="linked")).id)
print(json.dumps([*ids, "linked"]))
"""


class Siege:
    """A worker whose pools `research` and `writing` are delegated, and one who attacks by Redis alone.

    Args:
        folder: Its own, with the state folder of this process: it writes fleet.toml there.
        url: Of Redis.
        more: What else is in fleet.toml.
    """

    def __init__(self, folder: Path, url: str, more: str = "") -> None:
        self.folder, self.url = folder, url
        (folder / "fleet.toml").write_text(TOML.format(url=url) + more)
        config.current.cache_clear()
        self.root, _ = root_secret(config.current())
        self.until = int(time.time()) + 3600
        self.token = self.token_for("research")
        self.client = connect(url, timeout_s=5)
        self.worker = WorkerProcess(folder)

    def token_for(self, *pools: str, until: int | None = None, **scoped: Any) -> Token:
        scope = ScopeSettings(pools=pools, **scoped)
        return delegate(self.root, "simulator", "somebody", scope, self.until if until is None else until)

    def close(self) -> None:
        self.worker.kill()
        self.client.close()

    def produce(self, token: Token | None, code: str = PRODUCE) -> subprocess.CompletedProcess[str]:
        """Run a producer's program under a delegation."""
        file = self.folder / "some.delegation"
        env = {name: value for name, value in os.environ.items() if name != "FLEET_DELEGATION"}
        if token is not None:
            file.write_text(token.text)
            file.chmod(0o600)
            env["FLEET_DELEGATION"] = str(file)
        env["PYTHONPATH"] = str(REPO)
        return subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, env=env, capture_output=True, text=True, timeout=120
        )

    def push(
        self, header: str | None, *, task_id: str, pool: str = "research", queue: str = "", prompt: str = "stolen",
        canvas: dict[str, Any] = NO_CANVAS, eta: str | None = None, step: int = 2,
    ) -> str:  # fmt: skip
        """Put a message where workers take it, as nobody checks a client of Redis; return its id."""
        queue = queue or keys.queue(pool)
        headers = {**task_headers(task_id), "eta": eta} | ({} if header is None else {DELEGATION: header})
        fields: dict[str, Any] = {"prompt": prompt, "pool": pool}
        body = json.dumps([[], fields, canvas]).encode()
        message = envelope(task_id=task_id, queue=queue, priority=step, headers=headers, body=body)
        self.client.lpush(queues.list_key(queue, step), message)
        return task_id

    def signed(self, token: Token, task_id: str, pool: str = "research", prompt: str = "stolen") -> str:
        return sign(token, task_id, pool, digest({"prompt": prompt, "pool": pool}), b"")

    def result(self, task_id: str) -> BotResult | None:
        raw = self.client.get(keys.result(task_id))
        return None if raw is None else read_result(raw)  # type: ignore[arg-type]

    def results(self, ids: list[str]) -> dict[str, BotResult]:
        """Wait for all of them."""
        wait_until(lambda: every(self.result(one) for one in ids), WAIT_S, lambda: self._missing(ids))
        return {one: found for one in ids if (found := self.result(one)) is not None}

    def _missing(self, ids: list[str]) -> str:
        return f"results of {[one for one in ids if self.result(one) is None]}; log:\n{self.worker.log[-3000:]}"

    def attacks(self) -> Iterator[str]:
        """Yield the ids of tasks that must not be answered, each pushed in another way."""
        good = fresh_id()
        signature = self.signed(self.token, good)
        yield self.push(None, task_id=fresh_id())
        yield self.push(signature, task_id=fresh_id())  # under another id
        yield self.push(signature, task_id=good, prompt="changed")
        writing = self.token_for("writing")
        yield self.push(self.signed(writing, one := fresh_id(), "writing"), task_id=one)  # signed for another pool
        yield self.push(self.signed(writing, one := fresh_id()), task_id=one)  # by a token of another pool
        ended = self.token_for("research", until=int(time.time()) - 1)
        yield self.push(self.signed(ended, one := fresh_id()), task_id=one)
        yield self.push(self.signed(self.stranger(), one := fresh_id()), task_id=one)  # of another root
        wider = forged(writing, ScopeSettings(), self.until)
        yield self.push(self.signed(wider, one := fresh_id()), task_id=one)  # a link that names more than it was given
        seal_of = seal(unword(new_secret()), self.token.chain, one := fresh_id(), "research", b"x", b"")
        yield self.push(seal_of, task_id=one)  # sealed by no worker
        yield self.push(None, task_id=fresh_id(), eta="2020-01-01T00:00:00+00:00")
        yield self.push(None, task_id=fresh_id(), queue=config.current().worker.inbox)
        yield self.push(signature, task_id=fresh_id(), pool="writing")  # moved to another pool
        yield self.push("s1.nonsense", task_id=fresh_id())
        yield self.push(signature + "x" * 20_000, task_id=fresh_id())
        yield self.push(signature, task_id=fresh_id(), step=0)
        yield from self.by_canvas()
        yield from self.revoked()

    def stranger(self) -> Token:
        """Return a token that another fleet's root has signed."""
        return delegate(new_secret(), "simulator", "stranger", ScopeSettings(pools=("research",)), self.until)

    def by_canvas(self) -> Iterator[str]:
        """Yield ids of tasks that a worker itself is to send because they follow others, which nobody has signed so."""
        follows = {"task": "fleet.submit_task", "args": [], "kwargs": {"pool": "research"}, "subtask_type": None}
        one, two, three = fresh_id(), fresh_id(), fresh_id()
        for name, first, pool, header in (
            ("callbacks", one, "open", None),  # of an unsigned task of a pool that takes such
            ("errbacks", two, "research", self.signed(self.token, fresh_id())),  # of one that is refused
            ("callbacks", three, "open", self.signed(self.token, three, "open")),  # of one signed without it
        ):
            then = {**follows, "kwargs": {"pool": "research", "prompt": "stolen"}, "immutable": True}
            then["options"] = {"task_id": f"after-{first}"}
            self.push(header, task_id=first, pool=pool, canvas={**NO_CANVAS, name: [then]})
            yield f"after-{first}"

    def revoked(self) -> Iterator[str]:
        """Yield ids of tasks that were signed by a delegation that is revoked, and by one whose parent is."""
        parent = self.token_for("research")
        child = parent.delegate("child", ScopeSettings(), self.until)
        self.client.hset(vault_keys.revoked_delegations(), parent.blocks[-1].id, repr(time.time() - 1))
        wait_until(lambda: self._is_refused(child), WAIT_S, "the revocation is heard")
        self.client.hdel(vault_keys.revoked_delegations(), parent.blocks[-1].id)  # as whoever has Redis can
        for token in (parent, child):
            yield self.push(self.signed(token, one := fresh_id()), task_id=one)

    def _is_refused(self, token: Token) -> bool:
        one = self.push(self.signed(token, task_id := fresh_id()), task_id=task_id)
        return self.results([one])[one].status == "failed"


def unsigned_accepted(folder: Path, url: str) -> int:
    """Return how many tasks a client of Redis without a delegation gets answered, of about 20 ways to try.

    Args:
        folder: An empty one; the state folder of this process must be in it.
        url: Of a Redis of its own.
    """
    siege = Siege(folder, url)
    try:
        siege.worker.wait_ready()
        ids = list(siege.attacks())
        return sum(result.status != "failed" for result in siege.results(ids).values())
    finally:
        siege.close()
