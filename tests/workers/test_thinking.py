from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.conversation import Message
from fleet.usage import Usage
from fleet.workers.calls import Completion
from fleet.workers.thinking import StreamSplitter, apart, is_unopened, split

APART = {
    "a block": ("<think>\nI weigh {this}.\n</think>\n\n4", "4", "I weigh {this}."),
    "a block after white space": ("\n <think>hm</think>4", "4", "hm"),
    "another tag": ("<thinking>hm</thinking> 4", "4", "hm"),
    "a third": ("<reasoning>hm</reasoning>\n4", "4", "hm"),
    "a vendor's own": ("<seed:think>hm</seed:think>4", "4", "hm"),
    "capitals": ("<THINK>hm</THINK>4", "4", "hm"),
    "square brackets": ("[THINK]hm[/THINK]4", "4", "hm"),
    "nothing but square brackets": ("[THINK]hm[/THINK]", "", "hm"),
    "another alphabet": ("◁think▷hm◁/think▷4", "4", "hm"),
    "channels": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>4", "4", "hm"
    ),
    "cut before it closed": ("<think>\nI weigh", "", "I weigh"),
    "only a closing tag": ("I weigh this.\n</think>\n\n4", "4", "I weigh this."),
    "only a closing tag, on one line": ('hm {hm} </think>{"a": 1}', '{"a": 1}', "hm {hm}"),
    "two blocks": ("<think>a</think>one <think>b</think>two", "one two", "a\n\nb"),
    "a tag within the thinking": ("<think>a <think>b</think> c</think> 4", "4", "a <think>b\n\nc"),
    "an answer in quotes": ('<think>hm</think>"Yes," it says', '"Yes," it says', "hm"),
    "an empty block": ("<think>\n\n</think>\n\n4", "4", ""),
    "code within the thinking": ("<think>```py\nx\n</think>4", "4", "```py\nx"),
    "a block after the first words": ("Sure.\n<think>\nhm\n</think>\n4", "Sure.\n\n4", "hm"),
    "cut within a later block": ("Sure.\n<think>\nhm", "Sure.", "hm"),
    "JSON that holds a tag": ('<think>hm</think>{"a": "<think>"}', '{"a": "<think>"}', "hm"),
}  # fmt: skip

SAID = [
    "4",
    "a < b and [1] > 2",
    "I think so. <b>Bold</b>",
    "Models write `<think>` before and `</think>` after it.",
    'The tag "</think>" closes it; all else is text.',
    '{"html": "x <think> y </think> z"}',
    '["a </think> b"]',
    "It ends with <think> and nothing else",
    "It writes `<think>hm</think>` first",
    "```html\n<think>x</think>\n```\nis how it looks",
]


@pytest.mark.parametrize("name", APART)
def test_thinking_is_told_apart(name: str):
    text, said, thought = APART[name]
    assert split(text) == (said, thought)


@pytest.mark.parametrize("text", SAID)
def test_what_a_model_says_stays_as_it_is(text: str):
    assert split(text) == (text, "")


def test_a_closing_tag_after_which_nothing_comes_is_dropped():
    assert split("The answer is 4.\n</think>") == ("The answer is 4.\n", "")


def test_tags_that_the_prompt_asks_for_are_part_of_the_answer():
    asked = (Message(role="user", content="Answer as <Reasoning>...</Reasoning><answer>...</answer>."),)
    text = "<reasoning>2 and 2</reasoning><answer>4</answer>"
    assert split(text, asked) == (text, "")
    assert split(text, (Message(role="assistant", content="<reasoning>"),)).reasoning == "2 and 2"


def test_thinking_of_the_text_joins_what_the_wire_told():
    came = apart(Completion("<think>b</think>4", "stop", Usage(), reasoning="a"))
    assert (came.text, came.reasoning) == ("4", "a\n\nb")
    plain = Completion("4", "stop", Usage())
    assert apart(plain) is plain


PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<thinking>",
        "</thinking>",
        "[THINK]",
        "[/THINK]",
        "`",
        "```",
        "{",
        "}",
        "\n",
        " ",
        "a",
        "<",
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join))
def test_any_text_is_split_without_an_error_and_nothing_is_made_up(text: str):
    said, thought = split(text)
    assert len(said) + len(thought.replace("\n\n", "")) <= len(text)
    assert set(said) <= set(text) and set(thought) - {"\n"} <= set(text)


@given(st.data())
def test_a_stream_cut_anywhere_tells_the_same_apart_as_the_whole(data: st.DataObject):
    text, said, thought = data.draw(
        st.sampled_from([APART[name] for name in ("a block", "another tag", "square brackets", "channels", "capitals",
                                                  "a block after white space", "cut before it closed")])
        | st.sampled_from(SAID).map(lambda text: (text, text, ""))
    )  # fmt: skip
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    splitter = StreamSplitter()
    parts = [splitter.feed(text[a:b]) for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]
    parts.append(splitter.close())
    assert "".join(part.text for part in parts) == said
    assert "".join(part.reasoning for part in parts).strip() == thought


def test_the_time_is_linear():
    started = time.process_time()
    for text in ("<think>" * 100_000, "</think>a" * 100_000, "<" * 1_000_000, "```<think>\n" * 50_000):
        split(text)
    assert time.process_time() - started < 2


UNOPENED = "The user wants a sum.\n</think>\n\nfour"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "told", "thought"),
    [
        (UNOPENED, "four", "The user wants a sum.\n"),
        ("<think>hm</think>four", "four", "hm"),
        ("just four, 3 < 5", "just four, 3 < 5", ""),
        ("about `</think>` tags", "about `</think>` tags", ""),
        ("thinking, and cut</think>", "thinking, and cut", ""),
    ],
)
def test_a_stream_that_is_expected_to_close_thinking_it_never_opened_tells_what_comes_behind_it(
    text: str, told: str, thought: str, size: int
) -> None:
    splitter = StreamSplitter(is_unopened=True)
    found = [*(splitter.feed(text[at : at + size]) for at in range(0, len(text), size)), splitter.close()]
    assert "".join(one.text for one in found) == told
    assert "".join(one.reasoning for one in found) == thought


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        (UNOPENED, True),
        ("<think>hm</think>four", False),
        ("four", False),
        ("say `</think>` and go on", False),
        ('{"a": "x </think> y"}', False),
        ("all was thinking</think>", False),
    ],
)
def test_an_answer_that_only_closes_its_thinking_is_known(text: str, is_so: bool) -> None:
    assert is_unopened(text) is is_so
