"""What a model says when more than a plain answer is asked: thoughts, calls of tools, JSON by a schema, many answers.

Pure: all follows from the request and its draw. Tokens are those of `fleet.workers.context`, thinking included.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from fleet.workers.context import count_tokens
from fleet.workers.simulator.answers import SENTENCE_POOL, SimulatedAnswer, cut_to, longest_prefix, sentences
from fleet.workers.simulator.chance import Draw
from fleet.workers.simulator.prefix_cache import NOTHING, Cached
from fleet.workers.simulator.rich.acting import TALKATIVE, Acting, ToolPick, picks
from fleet.workers.simulator.rich.made_json import CannotMake, make_json
from fleet.workers.simulator.rich.wanted import Wanted, WireError

#: Tokens that a model thinks by effort, on average; each call between half and one and a half of it.
THINKING_TOKENS = {"none": 0, "minimal": 16, "low": 64, "medium": 256, "high": 1024, "xhigh": 2048, "max": 4096}
#: Tokens of thoughts that are told at most: the vendors tell a summary.
TOLD_TOKENS = 120
#: Sentences that a low verbosity leaves.
BRIEF_SENTENCES = 2
#: Tokens that a call of a tool takes beside its name and arguments.
CALL_OVERHEAD_TOKENS = 4

#: Says what the model says: the chance of this answer, and the most tokens of it.
Speak = Callable[[Draw, int | None], SimulatedAnswer]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
#: Makes the draws of several answers to one request differ: the golden ratio of 64 bits.
_STRIDE = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Called:
    """A wish to call a tool."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer.

    Args:
        text: What it says.
        thoughts: What it tells of its thinking.
        calls: Tools it wants called.
        tokens: All that was made, thinking included.
        thinking_tokens: Those of them that are thinking.
        reason: Why it ended: `stop`, `length`, `tool_calls` or `stop_sequence`.
        stopped_at: The text at which it ended.
        matched: As in `SimulatedAnswer`.
    """

    text: str
    thoughts: str = ""
    calls: tuple[Called, ...] = ()
    tokens: int
    thinking_tokens: int = 0
    reason: str = "stop"
    stopped_at: str | None = None
    matched: bool = True


@dataclass(frozen=True, slots=True)
class Spoken:
    """All that a rich request gets: its answers, and what the cache did."""

    choices: tuple[Choice, ...]
    cached: Cached = NOTHING

    @property
    def tokens(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def thinking_tokens(self) -> int:
        return sum(choice.thinking_tokens for choice in self.choices)


def speak_richly(
    wanted: Wanted, question: str, max_tokens: int | None, speak: Speak, draw: Draw, acting: Acting | None = None
) -> tuple[Choice, ...]:
    """Return the answers to a rich request, `wanted.n` of them.

    Args:
        wanted: What is asked.
        question: The last user message: a tool that it names is called.
        max_tokens: Most tokens of one answer, thinking included; None: no bound.
        speak: Gives the plain answer.
        draw: The chance of this call.
        acting: How it calls tools as an agent's model; None: as `wanted` and the question demand.

    Raises:
        WireError: When no value can be made for the schema.
    """
    choices = []
    for number in range(wanted.n):
        shift = number * _STRIDE
        choices.append(
            _choice(
                wanted,
                question,
                max_tokens,
                speak,
                draw._replace(words=(draw.words + shift) & _64_BITS, length=(draw.length + shift) & _64_BITS),
                acting,
            )
        )
    return tuple(choices)


def _choice(
    wanted: Wanted, question: str, max_tokens: int | None, speak: Speak, draw: Draw, acting: Acting | None
) -> Choice:
    thinking_tokens, thoughts = _think(wanted, draw)
    if max_tokens is not None and thinking_tokens >= max_tokens:
        return Choice(text="", thoughts=thoughts, tokens=max_tokens, thinking_tokens=max_tokens, reason="length")
    room = None if max_tokens is None else max_tokens - thinking_tokens
    chance = random.Random(draw.words)
    try:
        picked = _picked(wanted, question, chance) if acting is None else picks(acting, wanted, chance)
        is_talkative = acting is not None and not acting.manner.cycle and chance.random() < TALKATIVE
        said = chance.choice(SENTENCE_POOL) if is_talkative else ""
        made = _call(picked, said, room, chance) or _say(wanted, room, speak, draw, chance)
    except (CannotMake, ValueError) as error:
        raise WireError(str(error)) from None
    return Choice(
        text=made.text,
        thoughts=thoughts,
        calls=made.calls,
        tokens=made.tokens + thinking_tokens,
        thinking_tokens=thinking_tokens,
        reason=made.reason,
        stopped_at=made.stopped_at,
        matched=made.matched,
    )


def _think(wanted: Wanted, draw: Draw) -> tuple[int, str]:
    """Return the tokens that are thought, and what is told of it."""
    mean = THINKING_TOKENS.get(wanted.effort or "none", 0)
    tokens = mean // 2 + draw.words % (mean + 1) if mean else 0
    if wanted.thinking_limit is not None:
        tokens = min(tokens, wanted.thinking_limit)
    if not tokens or not wanted.shows_thinking:
        return tokens, ""
    text, _ = sentences(draw._replace(words=draw.words ^ _STRIDE))
    return tokens, longest_prefix(text, min(tokens, TOLD_TOKENS))


def _call(picked: list[ToolPick], said: str, room: int | None, chance: random.Random) -> Choice | None:
    """Return an answer that calls tools; None when none was picked.

    Args:
        picked: What is called.
        said: What is said beside it.
        room: Most tokens. The call that passes it is cut, those behind it are not made.
        chance: Decides the ids.
    """
    if not picked:
        return None
    calls, tokens = list[Called](), count_tokens(said) if said else 0
    if room is not None and tokens > room:
        said, tokens = "", 0
    for tool, source in picked:
        call_id = f"{chance.getrandbits(96):024x}"
        arguments = make_json(tool.parameters or {"type": "object"}, source)
        call = Called(call_id, tool.name, arguments)
        takes = CALL_OVERHEAD_TOKENS + count_tokens(call.name) + count_tokens(call.arguments)
        if room is not None and tokens + takes > room:
            cut = Called(call.id, call.name, longest_prefix(arguments, room - tokens))
            return Choice(text=said, calls=(*calls, cut), tokens=room, reason="length")
        calls.append(call)
        tokens += takes
    return Choice(text=said, calls=tuple(calls), tokens=tokens, reason="tool_calls")


def _picked(wanted: Wanted, question: str, chance: random.Random) -> list[ToolPick]:
    """Return the tools that the request demands or the question names."""
    tools = wanted.tools
    if not tools or wanted.choice == "none" or (wanted.is_answered and wanted.choice == "auto"):
        return []
    if wanted.choice not in ("auto", "required"):
        return [ToolPick(tool, chance) for tool in tools if tool.name == wanted.choice]
    named = [tool for tool in tools if re.search(rf"\b{re.escape(tool.name)}\b", question)]
    if wanted.choice == "required" and not named:
        named = [chance.choice(tools)]
    return [ToolPick(tool, chance) for tool in (named if wanted.is_parallel else named[:1])]


def _say(wanted: Wanted, room: int | None, speak: Speak, draw: Draw, chance: random.Random) -> Choice:
    if wanted.schema is not None:
        plain = speak(draw, None)
        text = make_json(wanted.schema or {"type": "object"}, chance, text=plain.text)
        answer = cut_to(text, count_tokens(text), room, matched=plain.matched)
    elif wanted.verbosity == "medium" and not wanted.stop:
        answer = speak(draw, room)
    else:
        plain = speak(draw, None)
        text = _worded(plain.text, wanted.verbosity, draw)
        answer = cut_to(text, count_tokens(text), room, matched=plain.matched)
    return _stopped(answer, wanted.stop)


def _worded(text: str, verbosity: str, draw: Draw) -> str:
    """Return a text with fewer or more sentences; one of a single sentence stays."""
    parts = _SENTENCE_END.split(text)
    if len(parts) == 1 or verbosity == "medium":
        return text
    if verbosity == "low":
        return " ".join(parts[:BRIEF_SENTENCES])
    return f"{text} {sentences(draw._replace(words=draw.words ^ _STRIDE))[0]}"


def _stopped(answer: SimulatedAnswer, stop: tuple[str, ...]) -> Choice:
    """Return an answer that ends before the first of the stop texts in it."""
    found = [(answer.text.find(one), one) for one in stop if one in answer.text]
    if not found:
        reason = "length" if answer.cut else "stop"
        return Choice(text=answer.text, tokens=answer.tokens, reason=reason, matched=answer.matched)
    place, at = min(found)
    text = answer.text[:place]
    return Choice(text=text, tokens=count_tokens(text), reason="stop_sequence", stopped_at=at, matched=answer.matched)
