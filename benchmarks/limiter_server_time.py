"""What one question costs the Redis server, by the number of waiting tickets."""

from __future__ import annotations

import random
from typing import Any

import redis

from fleet.config import LimitSettings
from fleet.limiter.layouts import ASKED, Asked
from fleet.limiter.limits import Terms
from fleet.limiter.scripts import ACQUIRE
from fleet.store import keys

#: Questions in one sample, and samples of which the best counts: other processes share the machine.
QUESTIONS, SAMPLES = 500, 12
TERMS = Terms.of(LimitSettings(rpm=3000, tpm=1_800_000, burst=0.002, counting="bucket")).pack()
#: What the bill keeps with a granted call.
NOTE = '["0123456789abcdef","","%s","research","research-001","","default","","",true,""]' % ("t" * 36)


def question_us(url: str) -> dict[int, tuple[float, float]]:
    """Return for each depth the microseconds of one question, and those of a script that returns 1."""
    client = redis.Redis.from_url(url)
    trivial = min(_sample(client, client.script_load("return 1"), lambda: (0,)) for _ in range(SAMPLES))
    return {depth: (_question_us(client, depth), trivial) for depth in (10, 1000, 10_000)}


def _question_us(client: redis.Redis, depth: int) -> float:
    client.flushall()
    names = keys.limit_keys("bench/model/key")
    sha = client.script_load(ACQUIRE.text)
    for number in range(depth + 40):  # the first ones are granted
        client.evalsha(sha, len(names), *names, *_ask(f"{number:08d}", -1, number))
    waiting: Any = client.zrange(names.queue, 0, -1, withscores=True)
    client.zadd(names.due, {ticket: 9e15 for ticket, _ in waiting})  # nobody is late

    def ask() -> tuple[Any, ...]:
        ticket, order = random.choice(waiting)
        return (len(names), *names, *_ask(ticket.decode(), int(order), 0))

    return min(_sample(client, sha, ask) for _ in range(SAMPLES))


def _ask(ticket: str, order: int, number: int) -> tuple[Any, ...]:
    asked = Asked(
        priority=2, asked_order=order, asked_candidate=1, charge=1000, weight=1, by_tenant=0, tokens=700, input=100,
        output=600, usd_micros=0, max_wait_us=600_000_000, random=random.random(), lease_us=600_000_000,
        patience_us=-1, beyond=0,
    )  # fmt: skip
    bot = f"bot-{number % 1000}"
    return tuple(ACQUIRE.arguments(terms=TERMS, calls=(ticket, bot, "q:default", ASKED.pack(asked), NOTE)))


def _sample(client: redis.Redis, sha: str, make: Any) -> float:
    client.config_resetstat()
    pipe = client.pipeline(transaction=False)
    for _ in range(QUESTIONS):
        pipe.evalsha(sha, *make())
    pipe.execute()
    stats: Any = client.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec_per_call"])
