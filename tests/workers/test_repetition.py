from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleet.conversation import Message
from fleet.workers.repetition import LOOP_SHARE, MIN_CHARS, MIN_CUT_CHARS, loop_in
from fleet.workers.simulator.answers import SENTENCE_POOL

OPENING = "The tide comes in twice a day, pulled by the moon and, less, by the sun. "
SENTENCE = "The harbour is quiet in the morning. "

LOOPS = {
    "a sentence until it is cut off": OPENING + (SENTENCE * 20)[:-9],
    "two sentences in turn": OPENING + (SENTENCE + "Boats come in with the evening tide. ") * 6,
    "a line": OPENING + "\n" + "The answer to the question is forty-two\n" * 12,
    "a word": "It was very " + "very " * 80,
    "a phrase without an end": OPENING + "and the cat sat on the mat " * 20,
    "a phrase with a comma": "and so it goes on and on, " * 20,
    "a paragraph": OPENING + ("First we look at the facts. " + "Then we weigh them with care. " + "\n\n") * 6,
    "a sentence, and a parting word": SENTENCE * 12 + "I hope this helps you with your question!",
    "a sentence, among others": " ".join(SENTENCE + f"It is day {n}. " for n in range(12)),
    "another script": "港の朝は静かで、船は夕方の潮とともにゆっくりと帰ってくる。" * 12,
}

PROSE_OPENING = " ".join(SENTENCE_POOL[:40]) + " "

VILLANELLE = "\n".join(
    [
        "The lamp burns low beside the harbour wall,", "The nets are dry, the gulls have gone to sleep,",
        "And no one hears the slow tide rise and fall.", "",
        "We named the boats when we were very small,", "And gave them words that only children keep;",
        "The lamp burns low beside the harbour wall.", "",
        "My father's coat still hangs inside the hall,", "The stairs up to his room are dark and steep,",
        "And no one hears the slow tide rise and fall.", "",
        "At night I think I hear the watchman call,", "But watchmen never call, they only creep;",
        "The lamp burns low beside the harbour wall.", "",
        "There was a time I would have told it all,", "But what is told is seldom told that deep,",
        "And no one hears the slow tide rise and fall.", "",
        "So let the letters gather where they sprawl,", "And let the garden sow what none will reap:",
        "The lamp burns low beside the harbour wall,", "And no one hears the slow tide rise and fall.",
    ]
)  # fmt: skip
CHORUS = "Row on, row on, the river knows the way\nRow on, row on, and we are home by day\n"
SONG = "\n".join(
    f"Verse {n} tells of stone number {n * 7}\nand of the {n}th bridge over water\n\n{CHORUS}" for n in range(5)
)

ANSWERS = {
    "a poem with refrains": VILLANELLE,
    "a song with a chorus": SONG,
    "a table": "| city | open | note |\n|---|---|---|\n" + "| Northern harbour office | closed | closed |\n" * 30,
    "an aligned table": "city        status\n" + "".join(f"Harbour no. {n}    closed\n" for n in range(30)),
    "code": "    result.append(compute_next_value(state))\n" * 20,
    "fenced code": OPENING + "```\n" + "print this line again and again please\n" * 30 + "```\nThat is all.",
    "JSON": '[{"name": "harbour", "is_open": true}' + ', {"name": "harbour", "is_open": true}' * 30 + "]",
    "a JSON list": '["not applicable here"' + ', "not applicable here"' * 40 + "]",
    "rows of numbers": "x 1 2 3 4 5\n" * 60,
    "numbers": "0, " * 200 + "0",
    "numbers in lines": "0.0\n" * 200,
    "labels": "positive\n" * 100,
    "labels with commas": "positive, " * 100,
    "a rule of dashes": "-" * 400,
    "steps": "\n".join(f"{n}. Multiply the last result by {n} and write it down." for n in range(1, 40)),
    "a short refrain": "Row, row, row your boat. " * 7,
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_found(name: str):
    assert loop_in(LOOPS[name]), name


@pytest.mark.parametrize("name", ANSWERS)
def test_what_repeats_itself_by_its_nature_is_no_loop(name: str):
    assert loop_in(ANSWERS[name]) is None


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Write 'I must not talk in class' fifty times.", "I must not talk in class.\n" * 50),
        ("Answer 'strongly disagree with this' or 'agree' per line.", "Strongly disagree with this\n" * 50),
        ("Say very a hundred times", "very " * 100),
    ],
)
def test_what_the_question_itself_says_may_be_repeated(question: str, answer: str):
    assert loop_in(answer) is not None
    asked = (Message(role="system", content="Be brief."), Message(role="user", content=question))
    assert loop_in(answer, asked) is None


def test_a_word_that_stands_in_every_question_is_not_asked_for():
    assert loop_in("the " * 100, (Message(role="user", content="What is the answer?"),)) is not None


CUT_LOOPS = {
    "a long answer that ends in a sentence": PROSE_OPENING + SENTENCE * 6,
    "a long answer that ends in a phrase": PROSE_OPENING + "and so on and so forth " * 10,
    "a long answer that ends in a word": PROSE_OPENING + "the " * 52,
    "a paragraph three times": PROSE_OPENING
    + f"First the facts. {SENTENCE_POOL[50]} {SENTENCE_POOL[60]} Then the rest. " * 3
    + "First",
    "a short answer": "The answer is " + "no it is not so and " * 7,
    "a short answer of one word": "I said " + "very " * 15,
}


@pytest.mark.parametrize("name", CUT_LOOPS)
def test_a_loop_at_the_end_of_a_cut_answer_is_found_however_short_it_is(name: str):
    assert loop_in(CUT_LOOPS[name]) is None, "the rule for whole answers finds it too: no example of this one"
    assert loop_in(CUT_LOOPS[name], is_cut=True)
    assert loop_in(CUT_LOOPS[name][:-3], is_cut=True)


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "a short refrain"])
def test_what_repeats_itself_by_its_nature_is_no_loop_wherever_it_is_cut(name: str):
    text = ANSWERS[name]
    assert [cut for cut in range(20, len(text), 7) if loop_in(text[:cut], is_cut=True)] == []


PROSE = st.lists(st.sampled_from(SENTENCE_POOL), min_size=3, max_size=60, unique=True)


@given(PROSE)
def test_prose_of_different_sentences_is_no_loop(sentences: list[str]):
    assert loop_in(" ".join(sentences)) is None


@given(PROSE, st.integers(1, 3), st.data())
def test_prose_that_ends_in_a_loop_is_found_wherever_it_is_cut(sentences: list[str], unit: int, data: st.DataObject):
    opening, loop = sentences[unit:], " ".join(sentences[:unit]) + " "
    rounds = max(5, 1 + int(len(" ".join(opening)) / len(loop) / (1 - LOOP_SHARE)), -(-2 * MIN_CHARS // len(loop)))
    text = " ".join(opening) + " " + loop * rounds
    assert loop_in(text[: len(text) - data.draw(st.integers(0, len(loop) - 1))])


@given(PROSE)
def test_prose_of_different_sentences_is_no_loop_when_it_is_cut(sentences: list[str]):
    assert loop_in(" ".join(sentences)[:-5], is_cut=True) is None


@given(st.text(), st.text(min_size=1), st.integers(1, 400), st.booleans())
def test_any_text_is_judged_without_an_error(opening: str, unit: str, rounds: int, is_cut: bool):
    text = opening + unit * rounds
    found = loop_in(text, is_cut=is_cut)
    assume(found is not None)
    assert found and len(text) >= (MIN_CUT_CHARS if is_cut else MIN_CHARS) and found in text.replace("```", "")
