from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.conversation import ImagePart, Message, TextPart, ToolCall
from fleet.workers.context import (
    CHARS_PER_TOKEN,
    CUT_MARKER,
    TOKENS_PER_CHAR,
    count_message_tokens,
    count_tokens,
    cut_middle,
    fit,
    lost_tokens,
    reshuffle,
)
from tests.every import every

texts = st.one_of(st.text(max_size=300), st.text(alphabet="ab AB12,\n\té你🎉", max_size=600))
messages_of = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts), min_size=1, max_size=8
)
windows = st.integers(min_value=64, max_value=3000)
#: A word of prose has some 1.3 tokens, so this text is known to be far above any window here.
LONG = "The quick brown fox jumps over the lazy dog. " * 2000


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def system(content: str) -> Message:
    return Message(role="system", content=content)


def test_words_digits_and_punctuation_are_counted_by_the_stated_rule():
    counts = {"": 0, "cat": 1, "a cat": 2, "cat.": 2, "extraordinary": 3, "2+2": 3, "12345": 2, "你好": 2, "🎉": 2}
    assert {text: count_tokens(text) for text in counts} == counts


#: Texts with their tokens in the o200k vocabulary, counted once with that vocabulary.
KNOWN = {
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast and bakes muffins with four.": 23,
    "The limiter answers once: send at this time, or ask again later. A thousand bots cost little.": 21,
    "Die Antwort liegt auf der Hand: Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.": 25,
    "def fit(messages, window):\n    return tuple(m for m in messages if m.role == 'user')[:window]\n": 24,
    '{"id": 1234567, "status": "ok", "answer": "42", "usage": {"input_tokens": 310, "output_tokens": 12}}': 37,
}


@pytest.mark.parametrize(("text", "tokens"), KNOWN.items())
def test_the_estimate_lies_close_above_a_real_vocabulary(text: str, tokens: int):
    assert tokens <= count_tokens(text) <= 1.6 * tokens


def test_half_of_a_surrogate_pair_is_counted_and_not_an_error():
    assert count_tokens("a \ud83c b") == 3


@given(texts)
def test_tokens_stay_between_the_bounds_that_save_counting(text: str):
    assert len(text) // CHARS_PER_TOKEN <= count_tokens(text) <= TOKENS_PER_CHAR * len(text)


@given(messages_of)
def test_a_conversation_has_more_tokens_than_its_texts(messages: list[Message]):
    assert count_message_tokens(messages) > sum(count_tokens(message.content) for message in messages)


@given(messages_of, windows, st.integers(min_value=0, max_value=4000))
def test_what_fits_never_exceeds_the_window(messages: list[Message], window: int, reserve: int):
    assert count_message_tokens(fit(messages, window, reserve)) <= window - min(reserve, window // 2)


@given(messages_of, windows)
def test_the_same_input_is_always_cut_the_same_way(messages: list[Message], window: int):
    assert fit(messages, window, 20) == fit(messages, window, 20)


@given(messages_of, windows)
def test_the_last_user_turn_survives_whole_or_with_its_middle_cut(messages: list[Message], window: int):
    asked = [message.content for message in messages if message.role == "user"]
    kept = [message.content for message in fit(messages, window, 20) if message.role == "user"]
    if asked:
        head, _, tail = kept[-1].partition(CUT_MARKER)
        assert kept[-1] == asked[-1] or (asked[-1].startswith(head) and asked[-1].endswith(tail))


@given(messages_of, windows)
def test_a_system_prompt_stays_at_the_front(messages: list[Message], window: int):
    kept = fit(messages, window, 20)
    had_system = any(message.role == "system" for message in messages)
    assert [message.role == "system" for message in kept] == [had_system and i == 0 for i in range(len(kept))]


@given(messages_of)
def test_a_conversation_that_fits_is_left_as_it_is(messages: list[Message]):
    alone = [message for message in messages if message.role != "system"]
    assert fit(alone, 100_000, 500) == tuple(alone)


def test_the_oldest_turns_go_first_and_the_rest_begins_with_a_user():
    turns = [user("first " * 40), assistant("second " * 40), user("third " * 40), assistant("fourth"), user("fifth")]
    kept = fit([system("be brief"), *turns], 160, 20)
    assert kept == (system("be brief"), *turns[2:])
    assert fit([system("be brief"), *turns], 70, 20) == (system("be brief"), turns[4])


def test_several_system_messages_become_one():
    assert fit([system("a"), user("q"), system("b")], 200, 20) == (system("a\n\nb"), user("q"))


def test_a_question_too_long_for_the_window_keeps_its_head_and_its_tail():
    kept = fit([system("be brief"), user("HEAD " + LONG + "TAIL")], 2048, 512)[-1].content
    assert kept.startswith("HEAD The quick") and kept.endswith("dog. TAIL") and CUT_MARKER in kept
    assert 1300 < count_tokens(kept) <= 1536


def test_a_system_prompt_longer_than_the_window_leaves_half_of_the_room_to_the_question():
    kept = fit([system(LONG), user("What now?")], 1024, 0)
    assert kept[1] == user("What now?")
    assert 400 < count_tokens(kept[0].content) <= 512


def test_an_answer_longer_than_the_window_may_reserve_half_of_it_only():
    assert count_message_tokens(fit([user(LONG)], 2048, 1_000_000)) in range(900, 1025)


def test_megabytes_of_text_are_cut_without_counting_them_all():
    megabytes = LONG * 40
    cut = cut_middle(megabytes, 1000)
    assert len(megabytes) > 3_000_000 and 900 < count_tokens(cut) <= 1000


@given(texts, st.integers(min_value=0, max_value=200))
def test_a_cut_text_has_never_more_tokens_than_it_may(text: str, most: int):
    assert count_tokens(cut_middle(text, most)) <= most


@given(st.one_of(texts, st.text(alphabet="abcdefg ", max_size=600), st.just("aaaaa   " * 50)))
def test_a_text_with_just_as_many_tokens_as_it_may_have_is_not_cut(text: str):
    assert cut_middle(text, count_tokens(text)) == text


@given(messages_of, st.integers(0, 2**30))
def test_reshuffling_keeps_every_message_the_turns_of_the_roles_and_the_last_question(messages, seed):
    shuffled = reshuffle(messages, seed)
    assert [m.role for m in shuffled] == [m.role for m in messages]
    assert sorted(m.content for m in shuffled) == sorted(m.content for m in messages)
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    assert last is None or shuffled[last] == messages[last]
    assert reshuffle(messages, seed) == shuffled


def test_documents_change_places_and_a_dialogue_does_not():
    documents = [user(f"Document {number}") for number in range(6)]
    question = [*documents, user("What do they have in common?")]
    assert len({reshuffle(question, seed) for seed in range(20)}) > 10
    dialogue = [user("One?"), assistant("Two."), user("Three?"), assistant("Four."), user("Five?")]
    assert every(reshuffle(dialogue, seed) == tuple(dialogue) for seed in range(20))


@pytest.mark.parametrize("dense", ["head", "tail", "both"])
def test_a_cut_takes_linear_time_wherever_the_tokens_stand(dense: str) -> None:
    """Tokens at the ends of a text: cutting its middle saves none of them, so a cut by what is too much never ends."""
    ends = "!?" * 20_000
    text = (ends if dense != "tail" else "") + "a" * 2_000_000 + (ends if dense != "head" else "")
    started = time.thread_time()
    cut = cut_middle(text, count_tokens(ends) // 2)
    assert time.thread_time() - started < 2
    assert 0 < count_tokens(cut) <= count_tokens(ends) // 2


def test_a_conversation_of_many_turns_is_cut_in_linear_time() -> None:
    turns = [Message(role=("user", "assistant")[n % 2], content="hi there") for n in range(10_000)]
    started = time.thread_time()
    kept = fit([Message(role="system", content="x" * 100), *turns], 4096, 512)
    assert time.thread_time() - started < 1
    assert 100 < len(kept) < 1000


def tool_loop(lengths: list[int]) -> list[Message]:
    """Return a question and calls of a tool with results of these lengths, in words."""
    turns = [system("be brief"), user("HEAD " + "why " * 40 + "TAIL")]
    for number, length in enumerate(lengths):
        wish = ToolCall(id=f"c{number}", name="look", arguments='{"page": 1}')
        turns.append(Message(role="assistant", tool_calls=(wish,)))
        turns.append(Message(role="tool", tool_call_id=f"c{number}", content="word " * length))
    return turns


@given(st.lists(st.integers(0, 800), max_size=6), st.integers(min_value=64, max_value=2000), st.integers(0, 3))
def test_a_result_never_stands_without_its_call_nor_a_call_without_its_result(
    lengths: list[int], window: int, old: int
):
    talk = [*(turn for _ in range(old) for turn in tool_loop([30, 30])[1:]), *tool_loop(lengths)]
    kept = fit(talk, window, 0)
    calls = [call.id for turn in kept for call in turn.tool_calls]
    assert [turn.tool_call_id for turn in kept if turn.role == "tool"] == calls
    assert count_message_tokens(kept) <= window


def test_long_results_of_tools_are_cut_before_any_call_goes():
    kept = fit(tool_loop([2000, 5, 2000]), 700, 0)
    assert [turn.role for turn in kept] == ["system", "user", *("assistant", "tool") * 3]
    assert [CUT_MARKER in turn.text for turn in kept if turn.role == "tool"] == [True, False, True]
    assert kept[1].text.startswith("HEAD")


def test_where_cutting_is_not_enough_the_oldest_calls_go_with_their_results():
    kept = fit(tool_loop([200] * 10), 330, 0)
    ids = [turn.tool_call_id for turn in kept if turn.role == "tool"]
    assert ids == [f"c{number}" for number in range(10 - len(ids), 10)]
    assert 1 <= len(ids) < 10


def test_images_stay_in_a_message_whose_text_is_cut():
    picture = ImagePart(type="image", url="https://example.test/a.png")
    kept = fit(
        [
            Message(
                role="user", content=(TextPart(type="text", text=LONG), picture, TextPart(type="text", text="short"))
            )
        ],
        2048,
        0,
    )
    assert kept[-1].content[1:] == (picture, TextPart(type="text", text="short"))
    assert CUT_MARKER in kept[-1].text


def test_a_developers_message_stays_at_the_front():
    kept = fit([system("a"), *tool_loop([5] * 20)[1:], Message(role="developer", content="rules")], 200, 20)
    assert [turn.role for turn in kept[:3]] == ["system", "developer", "user"]


def test_what_is_lost_is_counted_and_nothing_when_nothing_is():
    talk = [system("a"), user("q " * 500), assistant("b"), user("why?")]
    assert lost_tokens(talk, fit(talk, 8000, 20)) == 0
    assert lost_tokens([user("q"), system("a"), system("b")], fit([user("q"), system("a"), system("b")], 900, 9)) == 0
    kept = fit(talk, 200, 20)
    assert lost_tokens(talk, kept) == count_message_tokens(talk) - count_message_tokens(kept) > 0
