"""Runs as real clients make them, on each wire: what is warned of, what ends, and what is let be."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from fleet.config import PoolSettings
from fleet.errors import CapReached, NoProgress
from fleet.faults import Fault
from fleet.workers.frameworks.watch import RequestWatch
from fleet.workers.watching.run import MOST_REMEMBERED, RunWatch
from tests.workers.watching.talks import TALKS, ChatTalk, Made, MessagesTalk, ResponsesTalk, Talk, play

SAME: tuple[Made, ...] = (("lookup", {"q": "tide"}, "nothing found"),)
WORDS = "3 times in a row"


class Heard:
    """A watch over a run, with what it tells."""

    def __init__(self, **caps: Any) -> None:
        self.faults, self.warnings = 0, list[str]()
        self.run = RunWatch(PoolSettings(**caps), on_fault=self._fault, on_warning=self.warnings.append)

    def _fault(self) -> None:
        self.faults += 1


@pytest.fixture(params=TALKS)
def talk(request: pytest.FixtureRequest) -> Talk:
    made: Talk = request.param()
    return made


def test_the_same_call_is_warned_of_once_and_then_ended(talk: Talk) -> None:
    heard = Heard()
    with pytest.raises(NoProgress, match=r"the same tool calls \(lookup\) .* 4 rounds") as ended:
        play(heard.run, talk, [SAME] * 20)
    assert (ended.value.fault, ended.value.blame) == (Fault.CIRCLING, "bot")
    assert heard.run.turns == 5 and heard.warnings == ["3 rounds of the same tool calls (lookup)"]
    assert heard.faults == 1


def test_the_warning_is_in_one_request_only(talk: Talk) -> None:
    sent = play(Heard().run, talk, [SAME] * 3)
    assert [WORDS in json.dumps(body) for body in sent] == [False, False, False, True]


def test_a_circle_of_four_turns_is_seen(talk: Talk) -> None:
    circle: list[list[Made]] = [[(name, {}, f"{name} says so")] for name in ("read", "write", "test", "revert")]
    heard = Heard()
    with pytest.raises(NoProgress, match=r"the same 4 turns of tool calls \(read, write, test, revert\)"):
        play(heard.run, talk, circle * 10)
    assert heard.run.turns == 17 and heard.warnings == [
        "3 rounds of the same 4 turns of tool calls (read, write, test, revert)"
    ]


def test_a_turn_of_several_calls_is_one_step_in_whatever_order(talk: Talk) -> None:
    several: list[Made] = [("search", {"q": n}, f"page {n}") for n in range(6)]
    heard = Heard()
    with pytest.raises(NoProgress):
        play(heard.run, talk, [several if n % 2 else several[::-1] for n in range(20)])
    assert heard.run.turns == 5


def test_who_polls_and_gets_something_else_each_time_is_let_be(talk: Talk) -> None:
    heard = Heard()
    play(heard.run, talk, [[("status", {"job": 1}, f"{n}% done")] for n in range(60)])
    assert not heard.warnings and heard.run.turns == 61


def test_who_looks_twice_and_who_reads_one_thing_now_and_then_is_let_be(talk: Talk) -> None:
    heard = Heard()
    again: list[list[Made]] = [[("read", {"file": "a.py"}, "text")], [("test", {}, "2 failed")]]
    turns = [turn for n in range(20) for turn in (*again, [("write", {"line": n}, "done")])]
    play(heard.run, talk, turns)
    assert not heard.warnings


def test_spaces_and_order_in_arguments_and_results_make_no_difference() -> None:
    talk, heard = ChatTalk(), Heard()
    turns: list[list[Made]] = [
        [("find", {"a": 1, "b": 2} if n % 2 else {"b": 2, "a": 1}, '{"x": 1,  "y": 2}' if n % 2 else '{"y":2,"x":1}')]
        for n in range(9)
    ]
    with pytest.raises(NoProgress):
        play(heard.run, talk, turns)


def test_what_was_in_the_conversation_before_the_run_is_history(talk: Talk) -> None:
    play(RunWatch(PoolSettings(max_rounds=0)), talk, [SAME] * 3)
    talk.say("and now?")
    heard = Heard()
    play(heard.run, talk, [SAME], first=100)
    assert not heard.warnings and heard.run.tool_calls == 1


def test_conversations_side_by_side_do_not_count_together() -> None:
    heard, talks = Heard(), [kind() for kind in TALKS for _ in range(4)]
    for number, talk in enumerate(talks):
        play(heard.run, talk, [SAME, SAME], first=10 * number)
    assert not heard.warnings and heard.run.turns == 3 * len(talks)


@pytest.mark.parametrize("ids", [True, False])
def test_a_server_that_names_all_calls_alike_is_watched_and_wrongs_nobody(ids: bool) -> None:
    with pytest.raises(NoProgress):
        play(Heard().run, ChatTalk(ids=ids), [SAME] * 20)
    heard = Heard()
    for _ in range(8):
        play(heard.run, ChatTalk(ids=ids), [[("list", {}, "a b")], [("read", {"file": "a"}, "text")]])
    assert not heard.warnings


def test_a_word_of_the_user_between_does_not_hide_a_circle() -> None:
    heard, talk = Heard(), ChatTalk()
    with pytest.raises(NoProgress):
        for number in count(0, 2):
            play(heard.run, talk, [SAME], first=number)
            talk.say("Please go on.")
            assert number < 40
    assert len(heard.warnings) >= 1


def test_a_request_that_is_sent_again_is_warned_and_ended_again_and_no_turn_of_the_model_counts_twice() -> None:
    heard, talk = Heard(), ChatTalk()
    play(heard.run, talk, [SAME] * 2)
    del talk.body["messages"][-1]
    for _ in range(10):
        assert RequestWatch(heard.run).before(talk.body) == talk.body
    talk = ChatTalk()
    with pytest.raises(NoProgress):
        play(heard.run, talk, [SAME] * 9, first=100)
    for _ in range(3):
        with pytest.raises(NoProgress):
            RequestWatch(heard.run).before(talk.body)
    assert heard.faults == 1


def test_a_pool_may_let_its_agents_wait_for_something() -> None:
    heard = Heard(max_rounds=0)
    play(heard.run, ChatTalk(), [SAME] * 50)
    patient = Heard(max_rounds=10)
    play(patient.run, ChatTalk(), [SAME] * 9)
    assert not heard.warnings and not patient.warnings


@pytest.mark.parametrize("kind", [ChatTalk, MessagesTalk, ResponsesTalk])
def test_one_turn_with_more_calls_than_allowed_is_ended_before_any_is_made(kind: Callable[[], Talk]) -> None:
    heard = Heard()
    fan: list[Made] = [("fetch", {"page": n}, "text") for n in range(792)]
    with pytest.raises(CapReached, match=r"at most 128 times, got one with 792 calls \(fetch\)") as ended:
        play(heard.run, kind(), [SAME, fan])
    assert (ended.value.cap, ended.value.fault, ended.value.blame) == (
        "max_tool_calls_per_turn", Fault.FAN_OUT, "bot",
    )  # fmt: skip
    assert heard.faults == 1


def test_as_many_calls_as_allowed_in_one_turn_are_fine(talk: Talk) -> None:
    heard = Heard(max_tool_calls_per_turn=3, max_tool_calls=6)
    three: list[list[Made]] = [[("fetch", {"page": (turn, n)}, f"{turn} {n}") for n in range(3)] for turn in range(3)]
    play(heard.run, talk, three[:2])
    assert heard.run.tool_calls == 6
    with pytest.raises(CapReached, match="at most 6 calls of tools in one run of a task, got 9") as ended:
        play(heard.run, talk, three[2:], first=50)
    assert (ended.value.cap, ended.value.fault, ended.value.blame) == ("max_tool_calls", None, "prompt")
    assert heard.faults == 0


def test_the_turn_beyond_the_last_is_not_sent(talk: Talk) -> None:
    heard = Heard(max_turns=4)
    with pytest.raises(CapReached, match="max_turns: expected at most 4 turns in one run of a task") as ended:
        play(heard.run, talk, [[("read", {"page": n}, f"page {n}")] for n in range(9)])
    assert (ended.value.cap, ended.value.fault, ended.value.blame) == ("max_turns", None, "prompt")
    assert heard.run.turns == 4


def test_only_the_end_of_a_long_conversation_is_read() -> None:
    class Counted(list[Any]):
        read = 0

        def __reversed__(self) -> Any:
            for item in super().__reversed__():
                Counted.read += 1
                yield item

    talk, heard = ChatTalk(), Heard()
    talk.body["messages"] = [{"role": "user", "content": f"word {n}"} for n in range(5000)]
    play(heard.run, talk, [[("read", {"page": n}, f"page {n}")] for n in range(5)])
    request = RequestWatch(heard.run)
    request.before({"messages": Counted(talk.body["messages"])})
    assert Counted.read < 10


def test_a_run_remembers_a_bounded_number_of_calls() -> None:
    heard = Heard(max_turns=10_000, max_tool_calls=1_000_000)
    play(heard.run, ResponsesTalk(), [[("read", {"n": (turn, n)}, "x") for n in range(100)] for turn in range(60)])
    assert len(heard.run._known) == MOST_REMEMBERED


ODD: list[dict[str, Any]] = [
    {}, {"messages": None}, {"messages": ["x", 1, {"role": "tool"}, {"role": "assistant", "tool_calls": "x"}]},
    {"input": "a text"}, {"input": [{"call_id": 3}, {"call_id": "c"}, None]}, {"messages": {"role": "user"}},
    {"messages": [{"role": "user", "content": [{"type": "tool_result"}, 7]}]},
]  # fmt: skip


@pytest.mark.parametrize("body", ODD)
def test_what_is_no_conversation_passes_as_it_is(body: dict[str, Any]) -> None:
    heard = Heard()
    play(heard.run, ChatTalk(), [SAME])
    request = RequestWatch(heard.run)
    assert request.before(body) == body
    request.after(body)
    request.after({"choices": [None, {"message": 3}], "output": 3})
    request.after({"output": [{"call_id": "x", "type": "local_shell_call", "action": {"a": 1}}, 3]})


def test_names_that_a_model_invents_are_not_repeated() -> None:
    with pytest.raises(NoProgress) as ended:
        play(Heard().run, ChatTalk(), [(("say 'my secret'", {}, "no such tool"),)] * 9)
    assert "secret" not in str(ended.value) and "(a tool)" in str(ended.value)


def test_a_note_of_chat_completions_ends_the_last_result() -> None:
    body = play(Heard().run, ChatTalk(), [SAME] * 3)[-1]
    assert [turn["role"] for turn in body["messages"]] == ["user", *["assistant", "tool"] * 3]
    assert body["messages"][-1]["content"].startswith("nothing found\n\n[A note by the system")


def test_a_note_of_messages_is_a_text_behind_all_results() -> None:
    body = play(Heard().run, MessagesTalk(), [SAME] * 3)[-1]
    assert [block["type"] for block in body["messages"][-1]["content"]] == ["tool_result", "text"]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"] * 3 + ["user"]


def test_a_note_of_responses_is_the_users_last_word() -> None:
    body = play(Heard().run, ResponsesTalk(), [SAME] * 3)[-1]
    assert (body["input"][-2]["type"], body["input"][-1]["role"]) == ("function_call_output", "user")
