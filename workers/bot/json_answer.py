"""Answers that must fit a JSON schema: what the bot is told, how its answer is read, how it is asked to repair it.

Pure. The schema itself, compiled and checked, is `fleet/schema.py`'s; who sends the turns is `context.py` beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleet.conversation import Message, TextPart
from fleet.errors import BadAnswer, InvalidTask
from fleet.faults import Fault
from fleet.quoting import quote
from fleet.schema import Misfit, Schema
from fleet.workers.bot import embedded
from fleet.workers.bot.embedded import FENCE, NotJson, parse
from fleet.workers.context import count_message_tokens, count_tokens, cut_middle

#: Share of the room for input that a schema may take: the rest is the question's.
RULES_SHARE = 0.6
#: Share of the room for input that each of the two turns of a repair may take; their middle is cut out beyond it.
REPAIR_SHARE = 0.15


def rules(schema: Schema, room_tokens: int) -> str:
    """Return what a bot is told about the form of its answer.

    It belongs at the end of the system prompt: what is the same for all tasks of a class stands before what differs,
    so a provider's prefix cache keeps it.

    Args:
        schema: What the answer must fit.
        room_tokens: Tokens that the bot's window has for input.

    Raises:
        InvalidTask: When the schema takes so much of the window that no question fits beside it.
    """
    told = (
        "Answer with one JSON value that is valid under the JSON schema below, and with nothing else: no explanation, "
        f"no code fence.\n{schema.text}"
    )
    most, tokens = int(room_tokens * RULES_SHARE), count_tokens(told)
    if tokens > most:
        raise InvalidTask(
            f"answer_schema: expected at most {most} tokens, so that a question fits beside it into the bot's context "
            f"window, got {tokens}; shorten it, or raise the pool's persona.context_windows_tokens"
        )
    return told


def read(text: str, schema: Schema) -> tuple[str, list[Misfit]]:
    """Return the bare JSON text of an answer, and what does not fit.

    An answer may be JSON, or hold it in a code fence or between sentences. Of several values the one that fits counts;
    when several fit, or the last was cut off, nobody knows which is meant, and it is none. Linear.
    """
    whole = text.strip().removeprefix("\ufeff").strip()
    bare = _unfenced(whole)
    value = parse(bare)
    if not isinstance(value, NotJson):
        return bare, schema.misfits(value)
    found = [(part, schema.misfits(inner)) for part, inner in embedded.values_in(whole)]
    fitting = dict.fromkeys(part for part, misfits in found if not misfits)
    if len(fitting) == 1:
        return next(iter(fitting)), []
    if len(found) == 1:
        return found[0]
    return bare, [Misfit("JSON itself", f"it is not JSON{value.reason}")]


def repair(answer: str, misfits: Sequence[Misfit], room_tokens: int) -> tuple[Message, ...]:
    """Return the turns that ask the same bot once more: its answer, shortened, and what is wrong with it."""
    most = int(room_tokens * REPAIR_SHARE)
    wrong = "\n".join(f"- {misfit.told}" for misfit in misfits)
    asked = cut_middle(f"That answer is wrong:\n{wrong}\nSend the corrected JSON value only, whole.", most)
    return Message(role="assistant", content=cut_middle(answer, most)), Message(role="user", content=asked)


def unfit(misfits: Sequence[Misfit], hint: str = "") -> BadAnswer:
    """Return the error of an answer that does not fit. It names a rule of the schema, nothing of the answer."""
    return BadAnswer(
        f"schema: expected JSON that fits answer_schema, got an answer that breaks {quote(misfits[0].rule)}"
        f"{f' and {len(misfits) - 1} more' if misfits[1:] else ''}{hint}",
        fault=Fault.SCHEMA,
    )


def beside_tokens(told: str, turns: Sequence[Message]) -> int:
    """Return the tokens that the rules and the turns of a repair take."""
    return count_tokens(told) + count_message_tokens(turns) if told or turns else 0


def with_rules(messages: Sequence[Message], told: str, turns: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation whose system prompt ends with the rules, and which ends with the turns of a repair."""
    system, *others = messages
    return _ruled(system, told) if told else system, *others, *turns


def _ruled(system: Message, told: str) -> Message:
    """Return a system prompt with the rules behind it; a place that is marked for a cache stays where it is."""
    if isinstance(system.content, str) and system.cache is None:
        return Message(role="system", content=f"{system.content}\n\n{told}")
    parts = (TextPart(text=system.content),) if isinstance(system.content, str) else system.content
    *first, last = parts
    if system.cache is not None:
        last = last.model_copy(update={"cache": system.cache})
    return Message(role="system", content=(*first, last, TextPart(text=told)))


def is_json(text: str) -> bool:
    """True for an answer that is JSON, whether it fits or not."""
    return not isinstance(parse(text), NotJson)


def _unfenced(text: str) -> str:
    """Return what stands between an opening fence, with or without a language, and a closing one."""
    if not (text.startswith(FENCE) and text.endswith(FENCE) and len(text) > 2 * len(FENCE)):
        return text
    inside = text[len(FENCE) : -len(FENCE)]
    head, newline, body = inside.partition("\n")
    return (body if newline and head.strip().isalnum() else inside.removeprefix("json")).strip()
