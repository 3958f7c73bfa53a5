"""What a provider's error body says, made safe to show: never the key, never the prompt.

Providers like to quote the request they refuse. So a message is shown only when no stretch of it is found in what
was sent; type and code are shown when they look like the short words they should be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.quoting import QUOTED_CHARS

#: Letters and digits in a row that a message may share with the prompt or the key at most. Longer is a quotation.
SHARED_CHARS = 12
#: Largest error body that is read at all, in bytes.
MAX_BODY_BYTES = 64 * 1024
#: Longest conversation that a message is compared with, in characters; with a longer one no message is shown.
MAX_COMPARED_CHARS = 200_000

_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,48}")
_REFUSED = re.compile(r"deprecated|not supported|unsupported|does not support|not permitted|not allowed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error body: `type`, `code` and `param` as the vendor spells them, empty when absent or not safe to show."""

    type: str = ""
    code: str = ""
    param: str = ""
    message: str = ""
    refusal: str = ""

    @property
    def words(self) -> str:
        """Type and code, in brackets with a space before, or nothing."""
        words = ", ".join(dict.fromkeys(word for word in (self.type, self.code) if word))
        return f" ({words})" if words else ""

    def __str__(self) -> str:
        """Type, code and message, to be put right behind the status."""
        return f"{self.words}: {self.message}" if self.message else self.words

    def refuses(self, parameter: str) -> bool:
        """True when the provider says that this model does not take `parameter` at all."""
        return self.refusal == parameter


def read_problem(raw: bytes, *, secrets: Sequence[str], texts: Sequence[str]) -> Problem:
    """Read an error body of either vendor; anything else gives an empty problem.

    Args:
        raw: The body.
        secrets: Texts that must not be shown: the key.
        texts: Texts that must not be quoted: the conversation.
    """
    error = _error_object(raw)
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    type_, code, param = (_word(error.get(name), secrets) for name in ("type", "code", "param"))
    shown = " ".join(message[: QUOTED_CHARS + SHARED_CHARS].split())
    if _shares(shown, secrets, texts):
        shown = ""
    shown = shown if len(shown) <= QUOTED_CHARS else f"{shown[: QUOTED_CHARS - 1]}…"
    return Problem(type=type_, code=code, param=param, message=shown, refusal=_refused_parameter(param, message))


def _error_object(raw: bytes) -> dict[str, object]:
    if len(raw) > MAX_BODY_BYTES:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _word(value: object, secrets: Sequence[str]) -> str:
    """Return a type, code or parameter name if it is one short word and no part of a secret."""
    text = str(value) if isinstance(value, str | int) else ""
    return text if _WORD.fullmatch(text) and not _shares(text, secrets, ()) else ""


def _refused_parameter(param: str, message: str) -> str:
    """Return the request parameter that the model does not take, or nothing."""
    head = message[:QUOTED_CHARS]
    if not _REFUSED.search(message[: 4 * QUOTED_CHARS]):
        return ""
    if param:
        return param
    named = re.match(r"[`'\"]?([a-z_]+)[`'\"]? is ", head)
    return named.group(1) if named else ""


def _shares(message: str, secrets: Sequence[str], texts: Sequence[str]) -> bool:
    """True when a stretch of the message, letters and digits only, is found in a secret or a text."""
    if not message:
        return False
    if sum(map(len, texts)) > MAX_COMPARED_CHARS:
        return True
    letters = _letters(message)
    for length, others in ((SHARED_CHARS // 2, secrets), (SHARED_CHARS, texts)):
        stretches = [letters[i : i + length] for i in range(max(1, len(letters) - length + 1))]
        for other in map(_letters, others):
            if len(other) < length:
                if other and other in letters:
                    return True
            elif any(stretch in other for stretch in stretches):
                return True
    return False


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
