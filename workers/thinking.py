"""What a model thinks, told apart from what it says: for servers that leave the thinking in the text, between tags.

Pure. Thinking that the wire itself tells apart is read by the adapters in `providers/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from fleet.conversation import Message
from fleet.workers.calls import Completion

#: Tags of chat templates that think aloud. Plain alternatives without any repetition: a search is linear.
_MARK = re.compile(
    r"<(?P<end>/?)(?P<tag>think|thinking|thought|reasoning|seed:think)>"
    r"|\[(?P<end2>/?)(?P<tag2>THINK)\]"
    r"|◁(?P<end3>/?)(?P<tag3>think)▷"
    r"|<\|channel\|>(?P<tag4>analysis)<\|message\|>"
    r"|(?P<end5><\|end\|><\|start\|>assistant<\|channel\|>(?P<tag5>final)<\|message\|>|<\|channel\|>final<\|message\|>)",
    re.IGNORECASE,
)
#: With what closing tags begin.
CLOSING = ("</", "[/", "◁/")
#: Characters of the longest mark: so much of a stream may be the beginning of one.
MARK_CHARS = 56
#: Tags of one text that are looked at: with all of them a text of nothing else would take long.
MOST_MARKS = 64
#: What opens and closes code.
FENCE = "```"
#: Tags that prompts also ask for, as a form of the answer: then they are the answer's.
_ASKED_FOR = frozenset({"thinking", "thought", "reasoning"})
#: Characters beside a tag that make it one that is spoken about.
_QUOTES = frozenset("`'\"")
#: With what a text begins that is data as a whole.
_DATA = {"{": "}", "[": "]"}


class Split(NamedTuple):
    """A text in two."""

    text: str
    reasoning: str


class _Mark(NamedTuple):
    tag: str
    is_end: bool
    start: int
    end: int


def apart(completion: Completion, asked: Sequence[Message] = ()) -> Completion:
    """Return an answer whose text has no thinking in it; that stands in `reasoning`, with what the wire told there.

    Args:
        completion: As an adapter read it.
        asked: The conversation that it answers.
    """
    text = completion.text
    if "<" not in text and "[" not in text and "◁" not in text:  # all but a few answers end here, in 0.1 us
        return completion
    found = split(text, asked)
    if not found.reasoning:
        return completion
    reasoning = f"{completion.reasoning}\n\n{found.reasoning}" if completion.reasoning else found.reasoning
    return replace(completion, text=found.text, reasoning=reasoning)


def split(text: str, asked: Sequence[Message] = ()) -> Split:
    """Take the thinking out of a text: blocks between tags, one that was cut before it closed, one without an opening
    tag (chat templates may put that into the prompt). Linear.

    What is spoken about stays: tags in quotes or code, in JSON, and tags that the prompt itself asks for.

    Weakness: `<think>` tags that a prompt asks for are taken out as well.

    Args:
        text: A model's answer.
        asked: The conversation that it answers.
    """
    marks = [] if _is_data(text) else list(islice(_marks(text, asked), MOST_MARKS))
    kept: list[str] = []
    thought: list[str] = []
    at, inside = 0, False
    for i, mark in enumerate(marks):
        if inside:
            if mark.is_end:
                thought.append(text[at : mark.start])
                at, inside = mark.end, False
        elif _is_in_code(text, at, mark):
            continue
        elif not mark.is_end:
            if _opens(text, mark, marks[i + 1 :]):
                kept.append(text[at : mark.start])
                at, inside = mark.end, True
        elif text[mark.end :].strip():  # its opening tag was in the prompt: all before it is thinking
            thought += [*kept, text[at : mark.start]]
            kept, at = [], mark.end
        else:
            kept.append(text[at : mark.start])
            at = mark.end
    (thought if inside else kept).append(text[at:])
    if not thought:
        return Split(text if not marks else "".join(kept), "")
    return Split("".join(kept).strip(), "\n\n".join(part for part in map(str.strip, thought) if part))


def is_unopened(text: str, asked: Sequence[Message] = ()) -> bool:
    """True for an answer that begins with thinking whose opening tag stood in the prompt: only the closing one is here.

    A chat template puts it there, so the model's next answer begins so, too.
    """
    first = None if _is_data(text) else next(_marks(text, asked), None)
    return first is not None and first.is_end and not _is_in_code(text, 0, first) and bool(text[first.end :].strip())


class StreamSplitter:
    """Does the same while an answer comes in pieces.

    Weakness: it sees the block with which an answer begins. A later one is told as text, and so is one without an
    opening tag unless that is expected; the whole answer at the end has it apart all the same.

    Args:
        asked: The conversation that is answered.
        is_unopened: The answer is expected to begin with thinking that has no opening tag: it is held back until the
            closing one comes, or the end.
    """

    def __init__(self, asked: Sequence[Message] = (), *, is_unopened: bool = False) -> None:
        self._asked = asked
        self._expected = [""] if is_unopened else None
        self._held = ""
        self._inside: bool | None = None  # None: not known yet
        self._is_first = False

    def feed(self, piece: str) -> Split:
        """Take the next piece; return what is known to be text and what is thinking."""
        if self._expected is not None:
            return self._unopened(self._expected, piece)
        if self._inside is False:
            return Split(self._behind(piece), "")
        held = self._held + piece
        if self._inside is None:
            opened = held.lstrip()
            if len(opened) < MARK_CHARS and _may_become_mark(opened):
                self._held = held
                return Split("", "")
            first = next(_marks(held, self._asked), None)
            begins = first is not None and not first.is_end and not held[: first.start].strip()
            if first is None or not begins:
                self._inside, self._held = False, ""
                return Split(held, "")
            self._inside, held = True, held[first.end :].lstrip()
        return self._thinking(held)

    def _unopened(self, held: list[str], piece: str) -> Split:
        """Hold back what came until a tag says what it was. Only the end of it is searched again: linear."""
        tail = "".join(held[-1:])[-MARK_CHARS:]
        held.append(piece)
        if not any(sign in tail or sign in piece for sign in "<[◁"):
            return Split("", "")
        whole = "".join(held)
        first = next(_marks(whole, self._asked), None)
        if first is None or (first.is_end and not whole[first.end :].strip()):
            held[:] = [whole]
            return Split("", "")
        self._expected = None
        if not first.is_end:
            return self.feed(whole)
        self._inside, self._is_first = False, True
        return Split(self._behind(whole[first.end :]), whole[: first.start])

    def _thinking(self, held: str) -> Split:
        end = next((mark for mark in _marks(held, ()) if mark.is_end), None)
        if end is not None:
            self._inside, self._held, self._is_first = False, "", True
            return Split(self._behind(held[end.end :]), held[: end.start])
        safe = max(0, len(held) - MARK_CHARS)
        opened = min((at for at in (held.find(sign, safe) for sign in "<[◁") if at >= 0), default=len(held))
        self._held = held[opened:]
        return Split("", held[:opened])

    def _behind(self, text: str) -> str:
        """Return text behind the thinking, without the white space between them."""
        if self._is_first:
            text = text.lstrip()
            self._is_first = not text
        return text

    def close(self) -> Split:
        """Return what was held back."""
        if self._expected is not None:
            return split("".join(self._expected), self._asked)
        held, self._held = self._held, ""
        return Split("", held) if self._inside else Split(held, "")


def _marks(text: str, asked: Sequence[Message]) -> Iterator[_Mark]:
    """Yield the tags in a text, but those that are spoken about."""
    for found in _MARK.finditer(text):
        tag = (found["tag"] or found["tag2"] or found["tag3"] or found["tag4"] or found["tag5"]).casefold()
        is_end = bool(found["end"] or found["end2"] or found["end3"] or found["end5"])
        mark = _Mark(tag, is_end, found.start(), found.end())
        if not _is_quoted(text, mark) and not (tag in _ASKED_FOR and _is_asked_for(tag, asked)):
            yield mark


def _is_quoted(text: str, mark: _Mark) -> bool:
    """True for a tag in quotes, and for one that opens in the middle of inline code."""
    before, after = text[max(0, mark.start - 1) : mark.start], text[mark.end : mark.end + 1]
    if before in _QUOTES and before == after:
        return True
    return before == "`" and not mark.is_end and not text.endswith(FENCE, 0, mark.start)


def _is_in_code(text: str, at: int, mark: _Mark) -> bool:
    """True for a tag outside of any thinking that stands in code: between fences, or at the end of inline code."""
    ends_code = mark.is_end and text.startswith("`", mark.end) and not text.startswith(FENCE, mark.end)
    return ends_code or text.count(FENCE, at, mark.start) % 2 == 1


def _opens(text: str, mark: _Mark, later: Sequence[_Mark]) -> bool:
    """True for a tag that really opens a block: it is closed later, or begins the text, or stands on its own line."""
    if not text[: mark.start].strip() or any(other.is_end for other in later):
        return True
    return text[mark.start - 1] == "\n" and text[mark.end : mark.end + 1] == "\n"


def _is_data(text: str) -> bool:
    bare = text.strip()
    return bare.endswith(_DATA.get(bare[:1], "\0")) and _MARK.match(bare) is None


def _is_asked_for(tag: str, asked: Sequence[Message]) -> bool:
    return any(f"<{tag}>" in message.text.casefold() for message in asked if message.role != "assistant")


def _may_become_mark(opened: str) -> bool:
    """True when a text may go on to be an opening tag."""
    begun = opened.casefold()
    return any(mark.startswith(begun) for mark in _OPENING)


_OPENING = (
    "<think>", "<thinking>", "<thought>", "<reasoning>", "<seed:think>", "[think]", "◁think▷",
    "<|channel|>analysis<|message|>",
)  # fmt: skip
