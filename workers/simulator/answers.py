"""What the simulator says: a recorded answer, the value of a small sum, or seeded sentences about nothing.

Generated sentences repeat nothing of the prompt. Token counts are those of `fleet.workers.context`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from fleet.workers.context import CHARS_PER_TOKEN, count_tokens
from fleet.workers.simulator.chance import Draw

#: Sentences that a generated answer has at least and at most.
SENTENCES = (2, 9)
#: Longest question in which a sum is looked for, in characters: longer ones are texts that happen to hold numbers.
MAX_SUM_CHARS = 300
#: Longest sum, in characters, and the largest number in it and in its value: enough for any test question.
MAX_EXPRESSION_CHARS = 60
MAX_VALUE = 10**15

#: What every sum holds: tells most questions from sums in a tenth of the time.
_OPERATOR = re.compile(r"\d\s*\)?\s*[-+*/×÷−]")
_EXPRESSION = r"[-(\s]{0,9}\d[\d\s()+*/-]{0,50}[+*/-][\d\s()+*/-]{0,50}\d[\s)]{0,9}"
_ASKED = re.compile(
    rf"\b(?:what is|what's|calculate|compute|evaluate|how much is|solve)[\s:]*({_EXPRESSION})"
    r"(?!\s*[+*/-]?\s*\(?\s*\d|\w|[.,]\d)",
    re.IGNORECASE,
)
_BARE = re.compile(rf"({_EXPRESSION})[=?\s]*")
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-"})

_OPENERS = ("In short,", "As a rule,", "At first sight", "On balance", "In practice", "Over time", "By contrast,",
            "Here")  # fmt: skip
_SUBJECTS = ("the morning tide", "a quiet harbour", "the old bridge", "a patient gardener", "the northern line",
             "a small lantern", "the second draft", "a careful reader")  # fmt: skip
_VERBS = ("settles", "carries", "explains", "follows", "repairs", "measures", "outlasts", "reveals")
_OBJECTS = ("the slower current", "an uneven road", "its own weight", "the longest season", "a narrow margin",
            "every loose end", "the obvious choice", "a borrowed map")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """One answer, cut to the tokens it may have.

    Args:
        text: What the assistant says.
        tokens: Its length by `count_tokens`.
        cut: True when it was longer than allowed.
        matched: False when answers are replayed and none is recorded for the question.
    """

    text: str
    tokens: int
    cut: bool = False
    matched: bool = True


class Answers:
    """Finds or makes answers.

    Args:
        recorded: Answer by question, both stripped; None when nothing is replayed.
    """

    def __init__(self, recorded: Mapping[str, str] | None = None) -> None:
        self._recorded = None if recorded is None else {q: (a, count_tokens(a)) for q, a in recorded.items()}

    def answer(self, question: str, draw: Draw, *, max_tokens: int | None) -> SimulatedAnswer:
        """Return the answer to the last user message.

        Args:
            question: The message, stripped.
            draw: The chance of this call, which decides words and length.
            max_tokens: Most tokens of the answer; None: no bound.
        """
        matched = True
        if self._recorded is not None:
            found = self._recorded.get(question)
            if found is not None:
                return cut_to(*found, max_tokens, matched=True)
            matched = False
        value = solve(question)
        found = sentences(draw) if value is None else (value, count_tokens(value))
        return cut_to(*found, max_tokens, matched=matched)


def sentences(draw: Draw) -> tuple[str, int]:
    """Return two to nine sentences that follow from the draw alone, and their tokens.

    The estimate never counts across a full stop and a space, so the tokens of the sentences add up.
    """
    low, high = SENTENCES
    bits = (draw.words << 64) | (draw.length ^ draw.latency)
    picks = [(bits >> (12 * i)) & 0xFFF for i in range(low + draw.length % (high - low + 1))]
    return " ".join([SENTENCE_POOL[i] for i in picks]), sum([_SENTENCE_TOKENS[i] for i in picks])


def solve(question: str) -> str | None:
    """Return the value of the sum a question asks for ("What is 2+2?"), or None when it asks for none.

    Knows + - * / and brackets over whole numbers; fractions come as decimals with up to 6 digits.
    """
    if len(question) > MAX_SUM_CHARS or _OPERATOR.search(question) is None:
        return None
    plain = question.translate(_SIGNS)
    found = _ASKED.search(plain) or _BARE.fullmatch(plain)
    if found is None or len(found.group(1)) > MAX_EXPRESSION_CHARS:
        return None
    try:
        value = _value(ast.parse(found.group(1).strip(), mode="eval").body)
    except ZeroDivisionError:
        return "undefined"
    except (SyntaxError, ValueError):
        return None
    return str(value) if value.denominator == 1 else f"{float(value):.6g}"


def _value(node: ast.expr) -> Fraction:
    """Evaluate the one kind of expression that is allowed. Raises `ValueError` on any other."""
    match node:
        case ast.Constant(value=int(number)):
            value = Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            value = _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            value = _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            value = _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            value = _value(left) / _value(right)
        case _:
            raise ValueError("not a sum")
    if abs(value) > MAX_VALUE or value.denominator > MAX_VALUE:
        raise ValueError("too large")
    return value


def cut_to(text: str, tokens: int, max_tokens: int | None, *, matched: bool) -> SimulatedAnswer:
    """Return an answer of at most `max_tokens`; `tokens` are those of the text."""
    if max_tokens is None or tokens <= max_tokens:
        return SimulatedAnswer(text, tokens, matched=matched)
    kept = longest_prefix(text, max_tokens)
    return SimulatedAnswer(kept, count_tokens(kept), cut=True, matched=matched)


def longest_prefix(text: str, max_tokens: int) -> str:
    """Return a prefix of at most `max_tokens` tokens, as long as the estimate allows."""
    low, high = 0, min(len(text), CHARS_PER_TOKEN * (max_tokens + 1))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count_tokens(text[:middle]) <= max_tokens else (low, middle - 1)
    while low and count_tokens(text[:low]) > max_tokens:  # the estimate is not strictly monotonic
        low -= 1
    return text[:low]


#: All 4,096 sentences, made once: an answer is a pick of them.
SENTENCE_POOL = tuple(
    f"{opener} {subject} {verb} {thing}."
    for opener in _OPENERS
    for subject in _SUBJECTS
    for verb in _VERBS
    for thing in _OBJECTS
)
_SENTENCE_TOKENS = tuple(map(count_tokens, SENTENCE_POOL))
