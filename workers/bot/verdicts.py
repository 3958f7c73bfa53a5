"""What a validator has made of the answers that this process knows of, task class by task class. Pure; no I/O.

By this it is told whether what it raises now is about one answer, or about all of them: `validator.py`.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from fleet.models import BotTask

#: Tasks of one class on whose answers it raises, without a verdict in between, which show that it is no answer's fault.
FEW = 3
#: Answers of a class on which it has given verdicts that are kept, to be asked about again (count).
KEPT = 2
#: Task classes that are known at once, the latest ones (count): each keeps answers in memory.
MOST_KINDS = 8


class OneKind:
    """One task class.

    Attributes:
        known: Answers on which it has given a verdict, with their tasks, the latest ones.
        raised_on: Tasks on whose answers it has raised since its last verdict.
        since: Unix time (s) at which it raised first since then.
        is_proven: It has raised on an answer on which it had given a verdict before: it is broken.
    """

    def __init__(self) -> None:
        self.known: deque[tuple[BotTask, str]] = deque(maxlen=KEPT)
        self.raised_on: set[str] = set()
        self.since = 0.0
        self.is_proven = False

    @property
    def is_general(self) -> bool:
        """True when it raises on all answers of the class, as far as is known."""
        return self.is_proven or len(self.raised_on) >= FEW

    def raised(self, task_id: str, now_s: float) -> None:
        """Note that it has raised on an answer."""
        self.since = self.since or now_s
        self.raised_on.add(task_id)

    def gave(self) -> bool:
        """Note that it gives verdicts: there is no doubt any more. Return whether there was any."""
        was_in_doubt = bool(self.raised_on)
        self.raised_on.clear()
        self.since, self.is_proven = 0.0, False
        return was_in_doubt


class Verdicts:
    """All task classes of one validator.

    Attributes:
        given_at: Unix time (s) of its last verdict; None: it has given none.
    """

    def __init__(self) -> None:
        self._cases: OrderedDict[str, OneKind] = OrderedDict()
        self.given_at: float | None = None

    @property
    def is_in_doubt(self) -> bool:
        """True when it has raised on an answer of a class, and given no verdict on that class since."""
        return any(case.raised_on for case in self._cases.values())

    @property
    def is_proven(self) -> bool:
        """True when it is known to be broken for a class."""
        return any(case.is_proven for case in self._cases.values())

    def of(self, kind: str) -> OneKind:
        """Return a task class; the one that was asked for longest ago is forgotten for it."""
        case = self._cases.setdefault(kind, OneKind())
        self._cases.move_to_end(kind)
        if len(self._cases) > MOST_KINDS:
            self._cases.popitem(last=False)
        return case

    def gave(self, task: BotTask, answer: str, now_s: float) -> OneKind:
        """Note a verdict, and return the case that it is one of; what it means for that is the caller's to say."""
        self.given_at = now_s
        case = self.of(task.kind)
        case.known.append((task, answer))
        return case

    def gave_another(self, since: float, after: float) -> bool:
        """Return whether it has given a verdict of any class since then, and after that (Unix times, s)."""
        return self.given_at is not None and self.given_at > max(since, after)
