"""Does an answer say one thing over and over? Small models fall into such loops and stay in them until cut off.

Pure text in, verdict out. Sameness between answers of different bots is another matter: `fleet/diversity`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fleet.conversation import Message

#: Characters below which no answer is judged: a refrain, a cheer, a short list.
MIN_CHARS = 200
#: Share of the answer that must be loop.
LOOP_SHARE = 0.5
#: Times that a text which ends in a loop must have gone round it.
MIN_ROUNDS = 4
#: Times that a sentence or line must stand in the answer when other text stands between.
MIN_TIMES = 6
#: Characters of a sentence or line at least: shorter ones are labels ("positive"), which lists repeat by nature.
MIN_SENTENCE_CHARS = 24
#: Letters of a unit that may hold separators, at least: the same reason.
MIN_LETTERS = 20
#: Words that make up for fewer letters, and how many letters they must have: labels have three words at most.
MIN_WORDS, MIN_LETTERS_OF_WORDS = 5, 12
#: Characters at the end of an answer by which an earlier round of the loop is looked for.
PROBE_CHARS = 32

#: What ends a sentence, and what does so too.
STOP, MARKS = ". ", ("\n", "! ", "? ", "。", "！", "？")
#: Separators of lists: a short unit with one of them is an entry.
_SEPARATORS = frozenset(",;\n\t/")
#: What code, tables and data have and prose has not: such a unit is never taken for a loop.
_CODE = frozenset("{}[]()<>|=;\t_\\")
#: Letters of a unit from which on a question that holds it has asked for it; "the" stands in every question.
MIN_ASKED_LETTERS = 4
#: What is no part of a unit when it is looked for in the question.
_EDGES = " \t\r\n.,;:!?…。！？'\"“”*_-"


def loop_in(text: str, asked: Sequence[Message] = ()) -> str | None:
    """Return what an answer repeats over and over, or None.

    Two rules, either is enough:

    1. The answer *ends* in a loop: its last half, at least 200 characters, is one unit four times or more. That is how
       loops of language models look: a repeated sentence makes its next repetition more likely, so they hardly ever
       leave it (Xu et al. 2022, "Learning to Break the Loop", arXiv 2206.02369; Holtzman et al. 2020, "The Curious
       Case of Neural Text Degeneration", arXiv 1904.09751).
    2. Sentences or lines that each stand in it six times or more make up half of the answer, in whatever order: the
       measure of the Gopher rules (Rae et al. 2021, arXiv 2112.11446, table A1), whose bound for web pages (20% of
       the characters in repeated lines) songs and lists do not meet.

    Fenced code, JSON, tables, lists of numbers or of short labels do not count, nor does what the question itself
    says ("write 'I must not ...' a hundred times", labels to choose from). It is linear: about 25 us for 4,000
    characters of prose, 90 us for as many in lines of six.

    Weakness: loops with a counter in them ("Step 12: ...") and paraphrase are not seen. A song that is nothing but its
    refrain is taken for a loop, and so are three hundred As in a row for whoever asked for them.

    Args:
        text: The answer.
        asked: The conversation that it answers.
    """
    if len(text) < MIN_CHARS:
        return None
    if "`" in text and "```" in text:  # one letter is looked for ten times as quickly as three
        text = "".join(text.split("```")[::2])
    text = text.strip()
    unit = None if text.startswith(("{", "[")) else _tail_loop(text) or _repeated_sentence(text)
    return None if unit is None or not _CODE.isdisjoint(unit) or _is_asked_for(unit, asked) else unit


def _tail_loop(text: str) -> str | None:
    """Return the unit that the end of `text` repeats: rule 1."""
    end = len(text)
    earlier = text.rfind(text[-PROBE_CHARS:], 0, end - 1)
    period = end - PROBE_CHARS - earlier
    looped = max(MIN_CHARS, int(end * LOOP_SHARE), MIN_ROUNDS * period)
    if earlier < 0 or looped > end or text[end - looped + period :] != text[end - looped : end - period]:
        return None
    unit = text[end - _whole_loop(text, period, looped) :][:period]
    return unit if _is_wordy(unit) or (_letters(unit) and _SEPARATORS.isdisjoint(unit)) else None


def _whole_loop(text: str, period: int, looped: int) -> int:
    """Return how many of the last characters have the period; `looped` of them are known to. So a unit begins where
    the loop does, not in the middle of a word."""
    end, most = len(text), len(text)
    while looped < most:
        middle = (looped + most + 1) // 2
        fits = text[end - middle + period :] == text[end - middle : end - period]
        looped, most = (middle, most) if fits else (looped, middle - 1)
    return looped


def _repeated_sentence(text: str) -> str | None:
    """Return the most frequent sentence or line when such make up the text: rule 2."""
    for mark in MARKS:
        if mark[0] in text:
            text = text.replace(mark, STOP)
    parts = [part for part in text.split(STOP) if len(part) >= MIN_SENTENCE_CHARS]
    if len(parts) - len(set(parts)) < MIN_TIMES - 1:
        return None
    times = Counter(parts)
    loops = {part: n * (len(part) + len(STOP)) for part, n in times.items() if n >= MIN_TIMES and _is_sentence(part)}
    return max(loops, key=loops.__getitem__) if loops and sum(loops.values()) >= LOOP_SHARE * len(text) else None


def _is_sentence(part: str) -> bool:
    return _is_wordy(part) and _CODE.isdisjoint(part)


def _is_wordy(unit: str) -> bool:
    letters = _letters(unit)
    return letters >= MIN_LETTERS or (letters >= MIN_LETTERS_OF_WORDS and len(unit.split()) >= MIN_WORDS)


def _is_asked_for(unit: str, asked: Sequence[Message]) -> bool:
    said = unit.strip(_EDGES).casefold()
    return _letters(said) >= MIN_ASKED_LETTERS and any(said in message.text.casefold() for message in asked)


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))
