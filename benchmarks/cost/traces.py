"""The Mooncake traces: calls to a model, each prompt told as blocks of 512 tokens; equal ids stand for equal text.

An ideal cache has every block that was ever sent. What it reads of a prompt follows from the ids alone. Fleet's own
calls are made of the same prompts, at the times of the trace, with several keys; the simulator's ledger tells what was
read. Bots have one persona: what differs between personas stands before a prompt and parts it from the others.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.cost.tables import GPT_5
from benchmarks.cost.world import BEGIN_S, Vendor, World
from fleet.models import BotTask

#: Traces of the data set, by the names of their files.
TRACES = ("conversation", "synthetic")
#: Tokens of a block, and words that it is made of: each is one token, by Fleet's and the simulator's count.
BLOCK_TOKENS = 512
#: Labels of Fleet's keys.
KEYS = ("one", "two", "three", "four")
#: Places that the simulator remembers: all of both traces.
PLACES = 2_000_000
#: What a pool is told so that OpenAI keeps prompts for a day, and its bots' one persona.
POOL = {
    "extra_body": {"prompt_cache_retention": "24h"},
    "persona": {"archetypes": ["analytical"], "context_windows_tokens": [1_000_000]},
}
#: The same without either lever: OpenAI's cache keeps prompts for minutes.
UNKEPT = {"persona": POOL["persona"]}


class Request(NamedTuple):
    """One call of a trace.

    Args:
        at_s: When it came, in seconds from the begin.
        tokens: Of its prompt.
        blocks: Ids of its blocks.
    """

    at_s: float
    tokens: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What caches have read of a trace, in tokens: an ideal one, and the provider's; and how many were sent."""

    ideal: int
    read: int
    sent: int

    @property
    def of_ideal(self) -> float:
        """The share of what an ideal cache saves that was saved."""
        return self.read / self.ideal


def requests(path: Path, most: int | None = None) -> list[Request]:
    """Return the calls of a trace, in their order."""
    found = []
    with path.open() as file:
        for line in file:
            told = json.loads(line)
            found.append(Request(told["timestamp"] / 1000, told["input_length"], tuple(told["hash_ids"])))
            if len(found) == most:
                break
    return sorted(found, key=lambda one: one.at_s)


def ideal(trace: Sequence[Request]) -> int:
    """Return the tokens that a cache reads which forgets nothing, whose prompts may be as short as a block."""
    seen, read = set[int](), 0
    for one in trace:
        known = next((n for n, block in enumerate(one.blocks) if block not in seen), len(one.blocks))
        read += min(one.tokens, known * BLOCK_TOKENS)
        seen.update(one.blocks)
    return read


def prompt(one: Request) -> str:
    """Return the prompt of a call: so many words of one token, those of a block by its id."""
    return " ".join(_block(number) for number in one.blocks)[: one.tokens * 4 - 1]


def _block(number: int) -> str:
    """Return 512 words of three letters: those of 8 words that stand for an id, over and over."""
    digest = zlib.crc32(str(number).encode()) | number << 32
    letters = "".join(chr(97 + (digest >> shift) % 26) for shift in range(0, 48, 2))
    line = " ".join(letters[at : at + 3] for at in range(0, 24, 3))
    return " ".join([line] * (BLOCK_TOKENS // 8))


def replay(trace: Sequence[Request], keys: Sequence[str] = KEYS, pool: dict[str, object] | None = None) -> Read:
    """Have Fleet ask all of a trace, with several keys, and return what the provider's caches have read."""
    return asyncio.run(_replay(trace, keys, POOL if pool is None else pool))


async def _replay(trace: Sequence[Request], keys: Sequence[str], pool: dict[str, object]) -> Read:
    vendor = Vendor((GPT_5,), None, cache_places=PLACES)
    world = World(vendor, GPT_5, keys=keys, pool=pool)
    for number, one in enumerate(trace):
        vendor.now_s = BEGIN_S + one.at_s
        await world.ask(BotTask(prompt=prompt(one), max_output_tokens=1), number)
    total = vendor.ledger.report()["total"]
    return Read(ideal(trace), total["cached_tokens"], total["input_tokens"])


def present(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the traces that are in a folder."""
    for name in TRACES:
        path = folder / f"mooncake_{name}.jsonl"
        if path.exists():
            yield name, path
