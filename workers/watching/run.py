"""One run of a task: how often it asks the model, how many tools that calls, and whether it goes round in circles.

Neutral: how calls and results are spelt is in `messages.py` for `chat()`, and in `frameworks/watch.py` for requests of
SDKs. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fleet.errors import CapReached, NoProgress
from fleet.faults import Fault
from fleet.quoting import counted, listed
from fleet.workers.watching.circles import Circle, Track, advance
from fleet.workers.watching.steps import WantedCall, step_of

#: Calls of a run that are remembered, the latest ones (count): about 200 bytes each.
MOST_REMEMBERED = 4096


class RunCaps(Protocol):
    """What a pool allows: `fleet.config.PoolSettings`."""

    @property
    def max_turns(self) -> int: ...
    @property
    def max_tool_calls_per_turn(self) -> int: ...
    @property
    def max_tool_calls(self) -> int: ...
    @property
    def max_rounds(self) -> int: ...


class Came(NamedTuple):
    """The result of a call, as a request shows it."""

    id: str
    content: Any


#: What the end of a conversation shows of tools, the last first: results, and turns that called some.
Shown = Came | tuple[WantedCall, ...]


class _KnownTurn(NamedTuple):
    """A turn of this run that called tools, or that its provider remembers."""

    track: Track
    calls: Mapping[str, WantedCall]


class RunWatch:
    """Watches one run. Belongs to one event loop; requests of several conversations at once are fine.

    A conversation is known by the ids of its last calls, so that several at once, forks of one and repeated requests
    are each what they are, and calls of before this run are history. Each request carries the whole conversation; only
    its end is looked at, back to the last turn that called tools.

    Weakness: what a framework gives other ids, and calls that are not followed by their results, go unseen.

    Args:
        caps: What the pool allows.
        on_fault: Told once, when something is found that the bot may be to blame for.
        on_warning: Told what the model is warned of.

    Attributes:
        turns: Times that the model was asked.
        tool_calls: Calls of tools that it has asked for.
    """

    def __init__(
        self,
        caps: RunCaps,
        *,
        on_fault: Callable[[], None] = lambda: None,
        on_warning: Callable[[str], None] = lambda told: None,
    ) -> None:
        self._caps = caps
        self._on_fault: Callable[[], None] | None = on_fault
        self._on_warning = on_warning
        self._known: OrderedDict[str, _KnownTurn] = OrderedDict()
        self.turns = self.tool_calls = 0

    def asks(self, shown: Iterable[Shown], follows: str | None = None) -> tuple[Track, str | None]:
        """Note that the model is to be asked.

        Args:
            shown: What the request shows of tools, the last first; read no further than is needed.
            follows: Id of the answer that the request goes on from, where its provider remembers it.

        Returns:
            Where its conversation stands, for `heard`; and what the model is to be warned of, if it is.

        Raises:
            CapReached: It was asked often enough.
            NoProgress: It goes round in circles, and was warned.
        """
        if self.turns >= (most := self._caps.max_turns):
            raise CapReached(
                f"max_turns: expected at most {counted(most, 'turn')} in one run of a task, got another; find out why "
                "it asks so often, or raise max_turns of its pool",
                cap="max_turns",
            )
        self.turns += 1
        if not self._known:
            return Track(), None
        turn, calls, results = self._last_turn(shown, follows)
        if turn is None or not results:
            return Track() if turn is None else turn.track, None
        track, circle = advance(turn.track, step_of(calls, results), rounds=self._caps.max_rounds)
        return track, None if circle is None else self._judged(circle)

    def unasked(self) -> None:
        """Note that what the last `asks` was about was not sent, and will be asked in other words."""
        self.turns -= 1

    def heard(self, track: Track, calls: Sequence[WantedCall], answer_id: str | None = None) -> None:
        """Note what the model has answered.

        Args:
            track: What `asks` returned.
            calls: The tools that it wants called, which nobody has done yet.
            answer_id: The provider's name of the answer, where it remembers it.

        Raises:
            CapReached: Those are too many.
        """
        self.tool_calls += len(calls)
        if len(calls) > (most := self._caps.max_tool_calls_per_turn):
            self._blame()
            raise CapReached(
                f"max_tool_calls_per_turn: expected an answer that calls tools at most {counted(most, 'time')}, got "
                f"one with {len(calls):,} calls ({_named(calls)}), of which none was made; forbid parallel calls, or "
                "raise max_tool_calls_per_turn of the pool",
                cap="max_tool_calls_per_turn",
                fault=Fault.FAN_OUT,
            )
        if calls and self.tool_calls > (most := self._caps.max_tool_calls):
            raise CapReached(
                f"max_tool_calls: expected at most {counted(most, 'call')} of tools in one run of a task, got "
                f"{self.tool_calls:,}, the last {len(calls):,} of them not made; find out why it calls so many, or "
                "raise max_tool_calls of its pool",
                cap="max_tool_calls",
            )
        turn = _KnownTurn(track, {call.id: call for call in calls})
        for name in (*turn.calls, *((answer_id,) if answer_id else ())):
            self._known[name] = turn
            self._known.move_to_end(name)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def _last_turn(
        self, shown: Iterable[Shown], follows: str | None
    ) -> tuple[_KnownTurn | None, list[WantedCall], dict[str, Any]]:
        """Return the last turn of this run that a request goes on from, its calls as they are shown, and results."""
        turn: _KnownTurn | None = None
        calls: dict[str, WantedCall] = {}
        results: dict[str, Any] = {}
        for one in shown:
            if isinstance(one, Came):
                results.setdefault(one.id, one.content)
                continue
            known = [call for call in one if call.id in self._known]
            if not known or (turn is not None and self._known[known[-1].id] is not turn):
                break
            turn = self._known[known[-1].id]
            calls = {call.id: call for call in known} | calls
            if len(calls) >= len(turn.calls):  # some clients write one turn's calls as several
                break
        if turn is None:
            last = next((name for name in results if name in self._known), follows or "")
            turn = self._known.get(last)
        if turn is None or any(calls[name].name != turn.calls[name].name for name in calls.keys() & turn.calls.keys()):
            return None, [], {}  # of before this run; or an id that two conversations have
        its = {name: content for name, content in results.items() if name in turn.calls}
        return turn, [calls.get(name, call) for name, call in turn.calls.items()], its

    def _judged(self, circle: Circle) -> str:
        """Return what the model is warned of, or end it."""
        rounds = self._caps.max_rounds
        what = "the same" if circle.period == 1 else f"the same {circle.period} turns of"
        told = f"{what} tool calls ({listed(circle.tools, len(circle.tools))})"
        if circle.is_told:
            self._blame()
            raise NoProgress(
                f"expected progress, got {told} with the same arguments and results in {rounds + 1} rounds or more, "
                "also after a warning; correct the tool or the prompt, or raise max_rounds of the pool",
                fault=Fault.CIRCLING,
            )
        self._on_warning(f"{rounds} rounds of {told}")
        return (
            f"You have made {told} with the same arguments {rounds} times in a row, and the results were the same each "
            "time. Doing it again will not change them. Go on in another way, or finish with what you know and say "
            "what is missing."
        )

    def _blame(self) -> None:
        told, self._on_fault = self._on_fault, None
        if told is not None:
            told()


def _named(calls: Sequence[WantedCall]) -> str:
    step = step_of(calls[:100], {})
    return listed(step.tools, len(step.tools))
