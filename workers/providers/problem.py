"""What a provider's error body says, made safe to show: never the key, never the prompt.

Providers like to quote the request they refuse. So a sentence is shown only when no stretch of it is found in what
was sent; type and code are shown when they look like the short words they should be. How a body is read: `bodies.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fleet.conversation import FilePart, ImagePart, Message
from fleet.quoting import QUOTED_CHARS
from fleet.workers.providers.bodies import Said, read_said

#: Letters and digits in a row that a message may share with the prompt or the key at most. Longer is a quotation.
SHARED_CHARS = 12
#: A text of fewer letters and digits is no secret: "hi" is found in any message.
MIN_QUOTED_CHARS = 3
#: Letters and digits in a row by which a message is known to quote the prompt at length: then its words are not taken
#: for the provider's own. So many of its characters are looked at.
ECHOED_CHARS, COMPARED_CHARS = 32, 2000
#: Longest conversation that a message is compared with, in characters; with a longer one no message is shown.
MAX_COMPARED_CHARS = 200_000
#: Characters of a provider's words that are shown.
SHOWN_CHARS = 3 * QUOTED_CHARS

_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalnum())
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,48}")
_REFUSED = re.compile(r"deprecated|not supported|unsupported|does not support|not permitted|not allowed", re.IGNORECASE)
#: A key as providers show it, with its middle hidden.
_MASKED = re.compile(r"\S*(?:\*{2,}|(?<=\w)(?:…|\.{3,})(?=\w))\S*")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error body: `type`, `code` and `param` as the vendor spells them, empty when absent or not safe to show.

    `said` is all that the body says, for its meaning only: it may quote what was sent, so it is never shown.
    """

    type: str = ""
    code: str = ""
    param: str = ""
    message: str = ""
    refusal: str = ""
    said: Said = field(default=Said(), repr=False)
    is_echo: bool = False

    @property
    def words(self) -> str:
        """Type and code, in brackets with a space before, or nothing."""
        words = ", ".join(dict.fromkeys(word for word in (self.type, self.code) if word))
        return f" ({words})" if words else ""

    def __str__(self) -> str:
        """Type, code and message, to be put right behind the status."""
        return f"{self.words}: {self.message}" if self.message else self.words

    @property
    def text(self) -> str:
        """The provider's own sentences, to be understood and not to be shown; empty when they quote the prompt."""
        return "" if self.is_echo else "\n".join(self.said.messages)


def read_problem(raw: bytes, *, secrets: Sequence[str], texts: Sequence[str]) -> Problem:
    """Read an error body of any vendor; what cannot be read gives an empty problem.

    Args:
        raw: The body.
        secrets: Texts that must not be shown: the key.
        texts: Texts that must not be quoted: the conversation, see `texts_of`.
    """
    said = read_said(raw)
    if said == Said():
        return Problem()
    sent = _Sent.of(texts)
    param = _word(said.param, secrets)
    return Problem(
        type=_word(said.type, secrets),
        code=_word(said.code, secrets),
        param=param,
        message=_shown(said.messages, secrets, sent),
        refusal=_refused_parameter(param, said.messages[0] if said.messages else ""),
        said=said,
        is_echo=sent.is_echoed(said.messages),
    )


def texts_of(messages: Sequence[Message]) -> list[str]:
    """Return all that a conversation holds of its author's words: texts, addresses, files, arguments of tools."""
    texts = [message.text for message in messages]
    for message in messages:
        texts += [call.arguments for call in message.tool_calls]
        if not isinstance(message.content, str):
            files = [part for part in message.content if isinstance(part, ImagePart | FilePart)]
            texts += [text for part in files for text in (part.url, part.data) if text]
    return texts


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was sent, as it is compared with: letters and digits of long texts, words of short ones."""

    letters: tuple[str, ...]
    words: tuple[str, ...]
    is_too_much: bool = False

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Sent:
        """Read texts, each as it is and as JSON spells it where that differs: an echo may be either."""
        if sum(map(len, texts)) > MAX_COMPARED_CHARS:
            return cls((), (), is_too_much=True)
        escaped = [in_json for text in texts if (in_json := json.dumps(text)[1:-1]) != text]
        letters = dict.fromkeys(_letters(text) for text in (*texts, *escaped))
        short = (_spaced(text) for text in texts if MIN_QUOTED_CHARS <= len(_letters(text)) < SHARED_CHARS)
        return cls(tuple(text for text in letters if len(text) >= SHARED_CHARS), tuple(short))

    def is_quoted(self, message: str) -> bool:
        """True when a stretch of the message is found in what was sent, or the whole of a short text in the message."""
        if self.is_too_much:
            return True
        spaced = f" {_spaced(message)} "
        return _has_stretch(_letters(message), SHARED_CHARS, self.letters) or any(
            f" {words} " in spaced for words in self.words
        )

    def is_echoed(self, messages: Sequence[str]) -> bool:
        """True when messages quote what was sent at length."""
        letters = _letters(" ".join(messages)[:COMPARED_CHARS])
        return len(letters) >= ECHOED_CHARS and _has_stretch(letters, ECHOED_CHARS, self.letters)


def _shown(messages: Sequence[str], secrets: Sequence[str], sent: _Sent) -> str:
    """Return those sentences that quote nothing of what was sent, cut to what is shown."""
    safe: list[str] = []
    for message in messages[:4]:
        head = _MASKED.sub("***", message[: SHOWN_CHARS + SHARED_CHARS])
        if not (_is_secret(head, secrets) or sent.is_quoted(head) or any(head in other for other in safe)):
            safe.append(head)
    shown = ": ".join(safe)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS - 1]}…"


def _word(text: str, secrets: Sequence[str]) -> str:
    """Return a type, code or parameter name if it is one short word and no part of a secret."""
    return text if _WORD.fullmatch(text) and not _is_secret(text, secrets) else ""


def _refused_parameter(param: str, message: str) -> str:
    """Return the request parameter that the model does not take, or nothing."""
    head = message[:QUOTED_CHARS]
    if not _REFUSED.search(message[: 4 * QUOTED_CHARS]):
        return ""
    if param:
        return param
    named = re.match(r"[`'\"]?([a-z_]+)[`'\"]? is ", head)
    return named.group(1) if named else ""


def _is_secret(message: str, secrets: Sequence[str]) -> bool:
    """True when a stretch of the message is found in a secret, or the whole of a short one in the message."""
    letters, others = _letters(message), [_letters(secret) for secret in secrets]
    length = SHARED_CHARS // 2
    return _has_stretch(letters, length, others) or any(other in letters for other in others if 0 < len(other) < length)


def _has_stretch(letters: str, length: int, others: Sequence[str]) -> bool:
    """True when so many letters in a row, or all of fewer, are found in one of the others.

    Pieces of half the length are searched for, and those found are extended: every stretch holds such a piece. That is
    three times as fast as a search for each stretch (20 ms for a prompt of 190,000 characters).
    """
    if len(letters) <= length:
        return any(letters in other for other in others)
    half = length // 2
    return any(
        _run(letters, start, other, at, half, length) >= length
        for other in others
        for start in range(0, len(letters) - half + 1, half)
        for at in _places(other, letters[start : start + half])
    )


def _places(text: str, piece: str) -> Iterator[int]:
    at = text.find(piece)
    while at >= 0:
        yield at
        at = text.find(piece, at + 1)


def _run(one: str, i: int, other: str, j: int, known: int, most: int) -> int:
    """Return how many letters in a row two texts share around a piece that is known to be shared, or `most`."""
    before = after = 0
    while before < most and i > before and j > before and one[i - before - 1] == other[j - before - 1]:
        before += 1
    i, j = i + known, j + known
    while after < most and i + after < len(one) and j + after < len(other) and one[i + after] == other[j + after]:
        after += 1
    return min(before + known + after, most)


def _letters(text: str) -> str:
    """Return the letters and digits of a text, all small; a hundred times as fast where it is ASCII."""
    if text.isascii():
        return text.encode().translate(None, _NO_LETTERS).decode().lower()
    return "".join(filter(str.isalnum, text)).casefold()


def _spaced(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
