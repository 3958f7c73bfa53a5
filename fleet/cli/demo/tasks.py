"""What `fleet demo` runs: its own fleet.toml and a seeded mix of small questions for three pools. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator

from fleet.models import BotTask, Priority

#: The demo's configuration. The simulator admits 30 calls/s, so that the limit binds for most of the 500 tasks.
DEMO_TOML = """\
# Written anew by every `fleet demo`; it describes the demo only.
[worker]
processes = 2

[flower]
port = 0

[simulator]
rpm = 1800
latency_ms = 250
error_rate = 0.02
seed = {seed}

[pools.research]
bots = 30

[pools.writing]
bots = 40

[pools.review]
bots = 30
"""

#: Share of each priority in the mix, in percent.
PRIORITIES = {Priority.CRITICAL: 5, Priority.HIGH: 15, Priority.NORMAL: 50, Priority.LOW: 20, Priority.BULK: 10}
#: Share of each pool in the mix, in percent: as many tasks per bot everywhere.
POOLS = {"research": 30, "writing": 40, "review": 30}
TOPICS = (
    "tides", "glaciers", "sourdough", "queues", "lighthouses", "honeybees", "semaphores", "printing presses",
    "container ports", "migrating birds", "public libraries", "compilers", "bicycles", "earthquakes", "coral reefs",
)  # fmt: skip
TEMPLATES = {
    "research": ("What are the three most important facts about {topic}?", "Why do {topic} matter to a city?"),
    "writing": ("Write two friendly sentences about {topic}.", "Invent a headline about {topic}."),
    "review": ("Name one weak point of the claim that {topic} are easy to understand.", "Is {a} x {b} = {c}?"),
}


def demo_tasks(count: int, *, seed: int) -> Iterator[BotTask]:
    """Yield `count` tasks of mixed pool and priority; the same seed gives the same tasks."""
    chance = random.Random(seed)
    for _ in range(count):
        (pool,) = chance.choices(list(POOLS), weights=list(POOLS.values()))
        (priority,) = chance.choices(list(PRIORITIES), weights=list(PRIORITIES.values()))
        yield BotTask(prompt=_prompt(pool, chance), pool=pool, priority=priority, kind=pool)


def _prompt(pool: str, chance: random.Random) -> str:
    a, b = chance.randint(12, 99), chance.randint(12, 99)
    if pool == "research" and chance.random() < 0.4:
        return f"What is {a} + {b}?"
    template = chance.choice(TEMPLATES[pool])
    return template.format(topic=chance.choice(TOPICS), a=a, b=b, c=a * b + chance.choice((0, 1)))
