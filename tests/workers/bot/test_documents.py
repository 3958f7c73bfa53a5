"""The documents of tasks in their prompts: before everything else, the same for every bot, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from fleet.conversation import Kept, Message, TextPart
from fleet.errors import ContextTooLong, DocumentsTooLarge, NotStored
from fleet.models import BotTask, Remedy
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.bot.persona import treated
from fleet.workers.context import count_message_tokens, count_tokens
from fleet.workers.providers.written.anthropic_body import split_messages
from fleet.workers.providers.written.openai_body import write_message
from tests.workers.fakes import LIMIT, FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of

IDS = ("ctx-" + "a" * 24, "ctx-" + "b" * 24)
TEXT = "The harbour of Oland has nine cranes. " * 20


@dataclass(frozen=True)
class Shared:
    text: str
    tokens: int


@dataclass
class Stored:
    """Documents in memory."""

    text: str = TEXT
    error: Exception | None = None
    goes_first: bool = False
    begins: list[tuple[str, str, str]] = field(default_factory=list)

    async def opened(self, ids: Sequence[str], tenant: str) -> Shared:
        if self.error is not None:
            raise self.error
        return Shared(self.text, count_tokens(self.text))

    def limits(self, prefix: str, who: str) -> tuple[str, ...]:
        return (LIMIT,)

    def is_first(self, prefix: str, who: str) -> bool:
        return self.goes_first

    def keeps(self, prefix: str, limit: str) -> Kept | None:
        return "5m"

    def begun(self, prefix: str, limit: str, who: str) -> None:
        self.begins.append((prefix, limit, who))

    def came(self, prefix: str, limit: str, who: str, usage: Usage, tier: str | None) -> None:
        self.begun(prefix, limit, who)


def work(
    task: BotTask, provider: FakeProvider, *, index: int = 1, stored: Stored | None = None, remedy: Remedy | None = None
) -> Outcome:
    settings = settings_of(persona={"context_windows_tokens": [2048]})
    gateway = a_gateway(FakeLimiter(), provider)
    gateway.contexts = stored or Stored()
    bot = a_bot(index)
    if remedy is not None:
        bot = treated(bot, settings.pools["research"].persona, remedy)
    bot = bot.model_copy(update={"persona": bot.persona.model_copy(update={"context_window_tokens": 2048})})
    return asyncio.run(Agent(gateway, settings).run(task, bot, task_id="t", before=NOTHING_BEFORE))


def asked(messages: Sequence[object], **more: object) -> BotTask:
    return BotTask.parse(messages=list(messages), context=IDS, **more)


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def test_all_bots_prompts_begin_with_the_documents_on_both_wires() -> None:
    provider = FakeProvider(["9"])
    for index in range(1, 9):
        assert work(BotTask.parse("How many cranes?", context=IDS), provider, index=index).answer == "9"
    sent = [call.messages for call in provider.calls]
    assert len({messages[0].text for messages in sent}) == 4, "personas differ"
    for messages in sent:
        assert [message.role for message in messages] == ["system", "user"]
        assert write_message(messages[0])["content"].startswith(TEXT)
        system, turns = split_messages(messages)
        assert isinstance(system, str) and system.startswith(TEXT)
        assert turns == [{"role": "user", "content": "How many cranes?"}]


def test_documents_are_never_cut_or_reshuffled_and_the_rest_is() -> None:
    provider = FakeProvider(["9"])
    turns = [turn("user", f"Note {number}. " + "word " * 200) for number in range(8)] + [turn("user", "How many?")]
    told = work(asked(turns), provider, remedy=Remedy(rung=1, generation=3))
    (call,) = provider.calls
    first = call.messages[0]
    assert isinstance(first.content, tuple) and first.content[0] == TextPart(text=TEXT)
    assert call.messages[-1].text == "How many?"
    assert told.cut_tokens > 0 and count_message_tokens(call.messages) <= 2048
    notes = [message.text[:7] for message in call.messages[1:-1]]
    assert notes and notes != [f"Note {number}." for number in range(9 - len(call.messages[1:]), 8)]


def test_documents_that_leave_no_room_are_a_typed_refusal_and_nothing_is_sent() -> None:
    provider = FakeProvider(["9"])
    told = work(BotTask.parse("How many?", context=IDS), provider, stored=Stored(TEXT * 12))
    assert isinstance(told.error, DocumentsTooLarge) and told.error.blame == "prompt"
    assert "never cut" in str(told.error) and not provider.calls


def test_a_model_whose_own_window_is_smaller_ends_the_task_typed_instead_of_cutting_them() -> None:
    provider = FakeProvider([ContextTooLong("too long", window_tokens=300, true_input_tokens=400), said("9")])
    told = work(BotTask.parse("How many?", context=IDS, max_output_tokens=100), provider)
    assert isinstance(told.error, DocumentsTooLarge)
    assert len(provider.calls) == 1


def test_a_document_that_is_gone_makes_its_task_wait_alone() -> None:
    error = NotStored("gone")
    error.about = IDS[0]
    told = work(BotTask.parse("How many?", context=IDS), FakeProvider(["9"]), stored=Stored(error=error))
    assert told.parking is not None
    wait = told.parking.wait
    assert (wait.cause, wait.about, wait.is_everyones, told.parking.is_alone) == ("document", IDS[0], False, True)


@pytest.mark.parametrize("goes_first", [False, True])
def test_the_beginning_of_an_answer_is_told_whether_others_wait_for_it_or_not(goes_first: bool) -> None:
    task, stored = BotTask.parse("How many?", context=IDS), Stored(goes_first=goes_first)
    provider = FakeProvider(["9"])
    assert work(task, provider, stored=stored).answer == "9"
    assert set(stored.begins) == {(task.prefix, LIMIT, "t")}
    wishes = provider.calls[0].wishes
    assert (wishes.prefix, wishes.keep) == (task.prefix, "5m")


def test_rules_of_a_schema_that_is_told_by_the_prompt_come_behind_the_documents() -> None:
    provider = FakeProvider(['{"n": 9}'])
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "patternProperties": {"^x": {}}}
    told = work(BotTask.parse("How many?", context=IDS, answer_schema=schema), provider)
    assert told.answer == '{"n": 9}'
    first = provider.calls[0].messages[0]
    assert isinstance(first, Message) and first.text.startswith(TEXT)


@pytest.mark.parametrize(
    "wrong", [["ctx-1"], ["handbook.md"], [IDS[0]] * 9, 7], ids=["short", "a file", "too many", "no text"]
)
def test_ids_that_are_none_are_refused_where_they_are_submitted(wrong: object) -> None:
    with pytest.raises(Exception, match="context"):
        BotTask.parse("How many?", context=wrong)


def test_one_id_may_stand_alone_and_the_name_of_a_beginning_tells_what_stands_in_it() -> None:
    one = BotTask.parse("How many?", context=IDS[0])
    assert one.context == (IDS[0],) and one.prefix == BotTask.parse("And whose?", context=[IDS[0]]).prefix
    tool = {"type": "function", "function": {"name": "look"}}
    others = [
        BotTask.parse("How many?", context=IDS), BotTask.parse("How many?", context=IDS[::-1]),
        BotTask.parse("How many?", context=IDS[0], tools=[tool]),
        BotTask.parse("How many?", context=IDS[0], answer_schema={"type": "object"}),
    ]  # fmt: skip
    assert len({one.prefix, *(other.prefix for other in others)}) == 5
    assert BotTask.parse("How many?").prefix == ""
