"""What an error body says of a prompt that is too long, in any wording: how much a model takes, and how much came.

Pure text. What becomes of it: `workers/bot/context.py` cuts tighter, once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from fleet.workers.providers.taught.refusals import Words

#: Numbers below this are no token counts of a context.
LEAST_TOKENS = 16
#: Reasons why an answer ended that say the same, when there is no answer.
FULL_REASONS = (b'"model_context_window_exceeded"', b'"context_length_exceeded"', b'"context_window_exceeded"')

_NUMBER = r"(\d[\d,_]*)"
_TOO_LONG = re.compile(
    r"context_?(?:length|window|size)_?exceed|exceed_context|ContextWindowExceeded|string_above_max_length"
    r"|\b(?:maximum|max|model'?s|available)\b[^.]{0,40}?\b(?:context|sequence|prompt|input|model)\s+(?:length|window|size)"
    r"|\bcontext\s+(?:length|window|size|limit)\b[^.]{0,60}?(?:exceed|is|of|\(|only|too|\d)"
    r"|\b(?:prompt|input|inputs|conversation|messages?|context|request)\b[^.:]{0,40}?"
    r"\b(?:is|are|was|were)? ?(?:too|longer) (?:long|than)"
    r"|exceed\w*[^.]{0,60}?\b(?:context|(?:input|prompt|number of|max\w*) (?:tokens?|length))"
    r"|\binput token count\b|\btoo many (?:input |prompt )?tokens|reduce the length of"
    r"|exceed\w*[^.]{0,60}?\b(?:token|model) limit"
    r"|\b(?:prompt|input|messages?)\b[^.]{0,30}?\d+ tokens[^.]{0,60}?\b(?:only|at most|maximum|limit)\b"
    r"|\btokens?`?\s*\+\s*`?max_new_tokens|\brange of input length"
    r"|\bprompt contains \d+ tokens|\bn_ctx\b",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(r"\b(?:contains|has|resulted in|of) at least \d", re.IGNORECASE)
_OF_A_MINUTE = re.compile(r"per (?:min|hour|day|second)|rate.?limit|\btpm\b|\bquota\b|characters", re.IGNORECASE)
_LIMITS = tuple(
    re.compile(pattern.replace("#", _NUMBER), re.IGNORECASE)
    for pattern in (
        r">\s*#\s*(?:tokens?\s*)?(?:-\s*\d+|maximum|max|limit|\)|\.|$|tokens|,)",
        r"<=\s*#",
        r"\[\d+,\s*#\]",
        r"(?:context|sequence|prompt|model|input)\s+(?:length|window|size|limit)\s*(?:of\s+(?:this|the)\s+model\s*)?"
        r"(?:is|of|:|=|\()?\s*(?:only\s+)?(?:limited to\s+)?#",
        r"(?:maximum|max|limit|most|window|only|up to)\b[^\d.]{0,60}?#",
        r"#[\s-]*(?:tokens?[\s-]*)?(?:maximum|max\b|limit|context)",
    )
)
_INPUTS = tuple(
    re.compile(pattern.replace("#", _NUMBER), re.IGNORECASE)
    for pattern in (
        r"#\s*(?:tokens?\s*)?(?:in|from|of)\s+(?:the\s+|your\s+)?(?:input\s+|text\s+)?(?:messages|prompt|input)",
        r"#\s*(?:input|prompt|`?inputs`?)\s+tokens",
        r"input token count\D{0,12}#",
        r"(?:prompt|input|inputs)\s+(?:contains|has|is|of|with|length)\s*\(?(?:length\s+)?#",
        r"(?:request|prompt|input|decoder prompt)\s*\((?:length\s+)?#\s*(?:tokens?)?\)",
        r"too long:?\s*#\s*tokens",
        r"#\s*\+\s*\d[\d,_]*\s*>",
        r">\s*\d+\s*-\s*#",
        r"(?:request|messages|it) contains (?:at least )?#",
    )
)


class Overflow(NamedTuple):
    """A prompt that was too long: tokens that the model takes, that came as input, and in all; None: not said."""

    window_tokens: int | None = None
    input_tokens: int | None = None
    total_tokens: int | None = None

    def true_input(self, estimated: int, output_tokens: int) -> int | None:
        """Return the true input tokens of the call, as far as the figures tell.

        Args:
            estimated: Our estimate of them: decides whether a total has the answer's allowance in it.
            output_tokens: That allowance.
        """
        if self.input_tokens is not None or self.total_tokens is None:
            return self.input_tokens
        without = self.total_tokens - output_tokens
        is_nearer = without > 0 and abs(without - estimated) < abs(self.total_tokens - estimated)
        return without if is_nearer else self.total_tokens


def overflow_in(words: Words) -> Overflow | None:
    """Return what an error says of a prompt that is too long; None when it speaks of something else."""
    text = words.text
    if not (_TOO_LONG.search(text) or "n_ctx" in words.numbers) or _OF_A_MINUTE.search(text):
        return None
    window = words.numbers.get("n_ctx") or _first(_LIMITS, text)
    if _AT_LEAST.search(text):  # a server that stopped counting: the true number is not known
        return Overflow(window)
    given = words.numbers.get("n_prompt_tokens") or _first(_INPUTS, text)
    if given is not None and window is not None and given == window:
        given = None
    others = [number for number in _numbers(text) if window is not None and number > window]
    return Overflow(window, given, max(others, default=None) if given is None else None)


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    """Return the first number that one of the patterns finds, the first pattern first."""
    for pattern in patterns:
        for found in pattern.finditer(text):
            if (number := _int(found.group(1))) >= LEAST_TOKENS:
                return number
    return None


def _numbers(text: str) -> Iterator[int]:
    """Yield the whole numbers of a text that stand alone, not in names of models."""
    for found in re.finditer(rf"(?<![\w.-]){_NUMBER}(?![\w-]|\.\d)", text):
        yield _int(found.group(1))


def _int(digits: str) -> int:
    return int(digits.replace(",", "").replace("_", "")[:12])
