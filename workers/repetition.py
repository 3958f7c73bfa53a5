"""Does an answer say one thing over and over? Small models fall into such loops and stay in them until cut off.

Pure text in, verdict out. Sameness between answers of different bots is another matter: `fleet/diversity`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

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

#: Characters below which no answer is judged that was cut off: a tight token limit leaves no more.
MIN_CUT_CHARS = 60
#: Times that such a short one must have gone round its loop, half of it and more.
MIN_SHORT_ROUNDS = 6
#: Characters of a unit from which on three rounds of it at the end of a cut answer are a loop.
LONG_UNIT_CHARS, MIN_LONG_ROUNDS = 100, 3
#: Earlier places that are tried for the length of a unit: one that says something twice has a wrong one first (count).
MOST_PERIODS = 4

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


def loop_in(text: str, asked: Sequence[Message] = (), *, is_cut: bool = False) -> str | None:
    """Return what an answer repeats over and over, or None.

    Two rules, either is enough, and a third for answers that were cut off:

    1. The answer *ends* in a loop: its last half, at least 200 characters, is one unit four times or more. That is how
       loops of language models look: a repeated sentence makes its next repetition more likely, so they hardly ever
       leave it (Xu et al. 2022, "Learning to Break the Loop", arXiv 2206.02369; Holtzman et al. 2020, "The Curious
       Case of Neural Text Degeneration", arXiv 1904.09751).
    2. Sentences or lines that each stand in it six times or more make up half of the answer, in whatever order: the
       measure of the Gopher rules (Rae et al. 2021, arXiv 2112.11446, table A1), whose bound for web pages (20% of
       the characters in repeated lines) songs and lists do not meet.
    3. An answer that was *cut off* ends in one unit four times or more and for 200 characters, whatever stood before:
       it would have gone on. Three times are enough of a unit of 100 characters; a shorter answer must be half of
       it, six times or more.

    Fenced code, JSON, tables, lists of numbers or of short labels do not count, nor does what the question itself
    says ("write 'I must not ...' a hundred times", labels to choose from). It is linear: about 25 us for 4,000
    characters of prose, 90 us for as many in lines of six.

    Weakness: loops with a counter in them ("Step 12: ...") and paraphrase are not seen. A song that is nothing but its
    refrain is taken for a loop, and so are three hundred As in a row for whoever asked for them.

    Args:
        text: The answer.
        asked: The conversation that it answers.
        is_cut: It stopped at its token limit.
    """
    if len(text) < (MIN_CUT_CHARS if is_cut else MIN_CHARS):
        return None
    if "`" in text and "```" in text:  # one letter is looked for ten times as quickly as three
        text = "".join(text.split("```")[::2])
    text = text.strip()
    unit = None if text.startswith(("{", "[")) else _loop(text, is_cut)
    return None if unit is None or not _CODE.isdisjoint(unit) or _is_asked_for(unit, asked) else unit


def _loop(text: str, is_cut: bool) -> str | None:
    long = (_tail_loop(text) or _repeated_sentence(text)) if len(text) >= MIN_CHARS else None
    return long or (_cut_loop(text) if is_cut and len(text) >= MIN_CUT_CHARS else None)


def _cut_loop(text: str) -> str | None:
    """Return the unit that a cut `text` was repeating: rule 3."""
    end = len(text)
    for period in _periods(text, min(PROBE_CHARS, end // MIN_ROUNDS)):
        if text[-period:] == text[-2 * period : -period]:
            looped = _whole_loop(text, period, 2 * period)
            if _is_cut_loop(end, period, looped):
                return _unit(text, period, looped)
    return None


def _is_cut_loop(chars: int, period: int, looped: int) -> bool:
    """True when so many last characters of so many, in units of `period`, are a loop."""
    rounds = looped / period
    if chars < MIN_CHARS:
        return rounds >= MIN_SHORT_ROUNDS and looped >= max(MIN_CUT_CHARS, chars * LOOP_SHARE)
    return looped >= MIN_CHARS and rounds >= (MIN_LONG_ROUNDS if period >= LONG_UNIT_CHARS else MIN_ROUNDS)


def _tail_loop(text: str) -> str | None:
    """Return the unit that the end of `text` repeats: rule 1."""
    end = len(text)
    for period in _periods(text, PROBE_CHARS):
        looped = max(MIN_CHARS, int(end * LOOP_SHARE), MIN_ROUNDS * period)
        if looped > end:
            return None
        if text[end - looped + period :] == text[end - looped : end - period]:
            return _unit(text, period, _whole_loop(text, period, looped))
    return None


def _periods(text: str, probe_chars: int) -> Iterator[int]:
    """Yield lengths that the unit of a loop at the end may have, shortest first: a few."""
    end = len(text)
    probe, earlier = text[-probe_chars:], end - probe_chars
    for _try in range(MOST_PERIODS):
        earlier = text.rfind(probe, 0, earlier + probe_chars - 1)
        if earlier < 0:
            return
        yield end - probe_chars - earlier


def _unit(text: str, period: int, looped: int) -> str | None:
    """Return the unit of a loop, None when it is one that lists and numbers repeat by nature."""
    unit = text[len(text) - looped :][:period]
    return unit if _is_telling(unit) else None


def _is_telling(unit: str) -> bool:
    """True for a unit that is no entry of a list, and no rule or number."""
    return _is_wordy(unit) or bool(_letters(unit) and _SEPARATORS.isdisjoint(unit))


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
