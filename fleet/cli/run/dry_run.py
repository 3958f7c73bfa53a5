"""`fleet run --dry-run`: what a run would take, from IN, OUT, settings and what the fleet has learnt. Sends nothing.

Reads only: OUT stays as it is, nothing is queued, and no Redis is started for it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from fleet.cli.run.answers import RunNote, records_in
from fleet.cli.run.batch_lines import ENVELOPE
from fleet.cli.run.entries import InputLine, LineFormat, entry_of, read_questions
from fleet.cli.run.lanes import LaneRow, lane_rows
from fleet.cli.run.recognition import AnswerIndex, key_of
from fleet.cli.run.weighing import Scales
from fleet.config import Settings, home_path
from fleet.economy.contexts import documents
from fleet.economy.estimate import Estimate, Weighed, estimate
from fleet.economy.habits import LEAST_ANSWERS, Experience, Funds, Habit, habit_of
from fleet.economy.prices import PriceList
from fleet.engine.operations.expecting.experience import read_experience, unlearnt
from fleet.errors import FleetError, InvalidTask
from fleet.models import TASK_FIELDS, BotTask
from fleet.money import PICOS
from fleet.signals.ahead.outlook import usd
from fleet.store.private.embedded import redis_lives
from fleet.store.private.two_redis import two_redis
from fleet.usage import Usage

#: Answers in OUT whose usage is looked at (count): the first ones, more teach little.
MOST_SAMPLES = 5000
#: Names of fields that an error may begin with, of tasks and of batch lines, and where it names one.
_FIELDS = frozenset({*TASK_FIELDS, *ENVELOPE})
_FIELD_AT = re.compile(r"([A-Za-z_]+)(?:[.\[][^:]*)?:")


@dataclass
class Inventory:
    """What is in IN and OUT.

    Attributes:
        answered: Lines that OUT answers.
        wrong: Lines that are no valid tasks, by the field that is wrong; `line`: by no field of theirs.
        example: Why the first of them is none.
        asked: What is left to ask.
        samples: Lines that OUT answers, with their usage and cost (10^-12 dollars; None: unknown).
        paid_picos: What all answers in OUT have cost.
    """

    answered: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    example: str = ""
    asked: list[Weighed] = field(default_factory=list)
    samples: list[tuple[Weighed, Usage, int | None]] = field(default_factory=list)
    paid_picos: int = 0

    @property
    def lines(self) -> int:
        """All lines that are not blank."""
        return self.answered + self.wrong.total() + len(self.asked)


@dataclass(frozen=True)
class DryRun:
    """A run as it was asked for. `source` None is stdin.

    Args:
        settings: Pools, limits, prices.
        source: IN.
        target: OUT; None: every line is to be asked.
        line_format: How lines are read.
        retry_failed: What failed is asked again.
        overwrite: OUT is thrown away.
        max_usd: What the run may spend in all, its answers in OUT with it; None: as the run in OUT was told.
    """

    settings: Settings
    source: Path | None
    target: Path | None
    line_format: LineFormat
    retry_failed: bool = False
    overwrite: bool = False
    max_usd: float | None = None

    def survey(self) -> Inventory:
        """Read IN and OUT.

        Raises:
            ConfigurationError: When OUT isn't one of a run, or IN isn't made of JSON lines.
        """
        found, scales = Inventory(), Scales(self.settings, self._documents())
        index, used = self._answers(found)
        with self._open() as lines:
            for question in read_questions(lines, self.line_format):
                if not index.has(question):
                    self._take(question, found, scales)
                    continue
                found.answered += 1
                usage = used.get(key_of(question.asked))
                task = None if usage is None else entry_of(question, self.line_format).task
                if usage is not None and task is not None and (weighed := _weighed(scales, task)) is not None:
                    found.samples.append((weighed, *usage))
        return found

    def _documents(self) -> dict[str, int]:
        """Return the tokens of the shared documents that are stored, by id; none when there is no Redis."""
        with _two_clients(self.settings) as clients:
            return {} if clients is None else {one.id: one.tokens for one in documents.listed(clients[0])}

    def estimate(self, found: Inventory, known: Experience) -> Estimate:
        """Return what the lines that are left will take."""
        price = PriceList(self.settings)
        own = own_habits(found, price)
        return estimate(found.asked, price, _with(known, own))

    def lanes(self, found: Inventory, expected: Estimate, known: Experience) -> list[LaneRow]:
        """Return which lanes the tasks would take that say by when they need their answers."""
        return lane_rows(found.asked, expected, self.settings, PriceList(self.settings), known)

    def known(self, found: Inventory) -> Experience:
        """Return what the fleet has learnt; what the settings tell when there is no Redis."""
        asked = list(dict.fromkeys((one.pool, one.kind) for one in found.asked))
        priority = int(BotTask.parse("-", **self.line_format.options).priority)
        tenants = list(dict.fromkeys(one.tenant for one in found.asked if one.tenant))
        pools = dict.fromkeys(pool for pool, _ in asked)
        known = unlearnt(self.settings, pools, priority=priority, tenants=tenants)
        with _two_clients(self.settings) as clients:
            if clients is not None:
                known = read_experience(*clients, self.settings, asked, priority=priority, tenants=tenants)
        return replace(known, funds=(*known.funds, *self._own_funds(found)))

    def _own_funds(self, found: Inventory) -> Iterator[Funds]:
        """Yield what `--max-usd` leaves."""
        max_usd = self.max_usd
        if max_usd is None and self.target is not None and not self.overwrite:
            note = RunNote.read(self.target.with_name(self.target.name + ".run"))
            max_usd = None if note is None else note.max_usd
        if max_usd is not None:
            left = max(0.0, max_usd * PICOS - found.paid_picos)
            yield Funds(f"--max-usd ({usd(max_usd)})", left, each=0.0, opens_in_s=None, period_s=0.0)

    def _take(self, question: InputLine, found: Inventory, scales: Scales) -> None:
        entry = entry_of(question, self.line_format)
        error = entry.error
        if entry.task is not None:
            try:
                found.asked.append(scales.weigh(entry.task))
                return
            except InvalidTask as invalid:
                error = invalid
        what = str(error)
        found.wrong[_field_of(what)] += 1
        found.example = found.example or f"line {entry.line}: {what}"

    def _answers(self, found: Inventory) -> tuple[AnswerIndex, dict[int, tuple[Usage, int | None]]]:
        """Return what OUT answers, and what its first answers have used, by their questions' keys."""
        index, used = AnswerIndex(), dict[int, tuple[Usage, int | None]]()
        if self.overwrite or self.target is None or not self.target.is_file():
            return index, used
        has_note = self.target.with_name(self.target.name + ".run").exists()
        for record in records_in(self.target, may_be_torn=has_note):
            found.paid_picos += record.get("cost_usd_picos") or 0
            if self.retry_failed and record["status"] == "failed":
                continue
            index.add(record)
            usage = record.get("usage") or {}
            if len(used) < MOST_SAMPLES and any(usage.values()) and isinstance(asked := record.get("asked"), str):
                used[key_of(asked)] = Usage.model_validate(usage), record.get("cost_usd_picos")
        return index, used

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.source is None:
            yield sys.stdin.buffer
            return
        with self.source.open("rb") as lines:
            yield lines


def _field_of(error: str) -> str:
    """Return the field that an error is about, never what is in it: `messages` of `messages[3].role: expected ...`."""
    found = _FIELD_AT.match(error)
    return found[1] if found is not None and found[1] in _FIELDS else "line"


def _weighed(scales: Scales, task: BotTask) -> Weighed | None:
    try:
        return scales.weigh(task)
    except InvalidTask:
        return None


def own_habits(found: Inventory, price: PriceList) -> dict[tuple[str, str], Habit]:
    """Return what the answers in OUT tell of the lines that are left, by model and kind."""
    groups = defaultdict[tuple[str, str], list[tuple[Weighed, Usage, int | None]]](list)
    for sample in found.samples:
        groups[sample[0].api, sample[0].kind].append(sample)
    habits = {}
    for key, samples in groups.items():
        ratios = [usage.input_tokens / max(1.0, asked.input_tokens) for asked, usage, _ in samples]
        shares = [usage.output_tokens / asked.most_tokens for asked, usage, _ in samples]
        if len(samples) >= LEAST_ANSWERS:
            habits[key] = habit_of(shares, ratios, _price_share(samples, price))
    return habits


def _price_share(samples: list[tuple[Weighed, Usage, int | None]], price: PriceList) -> float:
    """Return what answers have cost as a share of the full price of their tokens."""
    paid = full = 0
    for asked, usage, picos in samples:
        bare = Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        cost = price(asked.api, bare, asked.tier)
        if picos is not None and cost is not None:
            paid, full = paid + picos, full + cost
    return paid / full if full and paid else 1.0


def _with(known: Experience, own: Mapping[tuple[str, str], Habit]) -> Experience:
    return replace(known, habits={**known.habits, **own})


@contextmanager
def _two_clients(settings: Settings) -> Iterator[tuple[Any, Any] | None]:
    """Connect to state and broker; None when there is no Redis that answers. Starts none."""
    if settings.redis.url is None and not redis_lives(home_path()):
        yield None
        return
    with ExitStack() as stack:
        try:
            both = stack.enter_context(two_redis(settings))
        except FleetError:
            yield None
            return
        yield both.state, both.broker
