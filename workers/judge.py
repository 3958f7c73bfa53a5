"""Is this a usable answer? By rules that need no second model: empty, refused, in a loop, cut, too short.

Pure. Whether an answer is right is not judged here; nor is it charged to anybody here. Answers that must be JSON are
in `json_answer.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.conversation import Message
from fleet.errors import BadAnswer, ProviderUnavailable
from fleet.faults import Fault
from fleet.models import Norms
from fleet.workers.calls import Completion
from fleet.workers.repetition import loop_in

#: Finish reasons of an answer that stopped at its token limit (OpenAI and Anthropic spelling).
CUT_REASONS = frozenset({"length", "max_tokens"})
#: Finish reasons by which the provider itself says that it refused (OpenAI and Anthropic spelling).
REFUSAL_REASONS = frozenset({"content_filter", "refusal"})
#: Finish reasons that need no word of their own: the model was done, or wants tools called.
DONE_REASONS = frozenset({"stop", "tool_calls"})
_WORD = re.compile(r"[A-Za-z_]{1,32}")
#: Share of thinking from which on an answer that was cut has had no room for anything else.
SPENT_SHARE = 0.9
#: Characters beyond which an answer is never taken for a refusal: models explain at length, refuse in brief.
REFUSAL_MAX_CHARS = 400

#: Share of the usual length below which an answer is suspiciously short.
SHORT_SHARE = 0.1
#: Share of the usual time below which it also came suspiciously fast.
FAST_SHARE = 0.6
#: Usual time in ms under which nobody can tell fast from slow: then length decides alone.
MIN_NORM_MS = 250.0
#: Usual length, in characters, under which a class is answered briefly by nature, and shortness says nothing.
MIN_NORM_CHARS = 200.0
#: Characters of a token, as English prose has them.
CHARS_PER_TOKEN = 4
#: Tasks that must have taught what is usual.
MIN_NORM_TASKS = 30

#: What may stand before a refusal. Alone it is none: "I'm sorry to hear that" is an answer.
APOLOGIES = (
    "i'm sorry, but ", "i am sorry, but ", "i'm sorry, ", "i am sorry, ", "i'm sorry. ", "i'm sorry but ",
    "sorry, but ", "sorry, ", "i apologize, but ", "i apologise, but ", "unfortunately, ",
    "as an ai, ", "as an ai language model, ",
)  # fmt: skip
#: Openings of a refusal. "I can't help but ..." and "I cannot find ..." are not among them.
REFUSALS = (
    "i can't help with", "i cannot help with", "i can't assist", "i cannot assist", "i can't comply", "i cannot comply",
    "i can't fulfill", "i cannot fulfill", "i can't engage in", "i cannot engage in", "i can't provide assistance",
    "i cannot provide assistance", "i won't help with", "i will not help with", "i'm unable to help with",
    "i am unable to help with", "i'm unable to assist", "i am unable to assist", "i'm not able to help with",
    "i am not able to help with", "i'm not able to assist", "i am not able to assist", "i must decline",
)  # fmt: skip
#: How every text begins that is taken for a refusal.
_BEGINNINGS = (*APOLOGIES, *REFUSALS)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer is worth: `error` is None when it is usable; `degraded` when it is usable but cut off.

    `retry` is True when the same question may well get a usable answer the next time; `spent` when it may with more
    room or less thinking only. An answer that broke off never comes here: that is its provider's failure.
    """

    error: BadAnswer | None = None
    degraded: bool = False
    retry: bool = False
    spent: bool = False


def judge(
    text: str,
    finish_reason: str,
    asked: Sequence[Message] = (),
    *,
    in_json: bool = False,
    thinking_share: float = 0.0,
    calls_tools: bool = False,
) -> Judgement:
    """Judge one answer.

    Weakness: the refusal rule knows English openings only and errs towards "not a refusal", so it misses some; a
    short answer that quotes a refusal word for word from its first letter is taken for one.

    Args:
        text: The model's answer.
        finish_reason: Why the model stopped, as the provider spells it.
        asked: The conversation that it answers: what it asks for may be repeated.
        in_json: The answer must be JSON, where repetition is data.
        thinking_share: How much of what the model made is thinking, 0 to 1.
        calls_tools: The answer wants tools called: it needs no text.
    """
    if finish_reason in REFUSAL_REASONS:
        return Judgement(
            BadAnswer(
                f"refused: expected an answer, got finish reason {finish_reason!r}; change the prompt",
                fault=Fault.REFUSED,
            )
        )
    is_cut = finish_reason in CUT_REASONS
    if calls_tools:
        return Judgement(degraded=is_cut)
    is_spent = is_cut and thinking_share >= SPENT_SHARE
    if not text.strip():
        return _empty(finish_reason, is_spent=is_spent or is_cut)
    if len(text) <= REFUSAL_MAX_CHARS and _refuses(text):
        wording = "refused: expected an answer, got the wording of a refusal; change the prompt"
        return Judgement(BadAnswer(wording, fault=Fault.REFUSED))
    loop = None if in_json else loop_in(text, asked, is_cut=is_cut)
    if loop is not None:
        wording = (
            f"repeated: expected an answer, got {len(loop)} characters over and over; change the prompt or the model"
        )
        return Judgement(BadAnswer(wording, fault=Fault.REPEATED))
    return Judgement(degraded=is_cut, spent=is_spent)


def judge_completion(completion: Completion, asked: Sequence[Message], *, in_json: bool) -> Judgement:
    """Judge one answer by all that came with it, see `judge`."""
    return judge(
        completion.text,
        completion.finish_reason,
        asked,
        in_json=in_json,
        thinking_share=thinking_share(completion),
        calls_tools=bool(completion.tool_calls),
    )


def thinking_share(completion: Completion) -> float:
    """Return how much of what a model made is thinking: as it was billed, else by the length of what is shown."""
    made = completion.usage.output_tokens
    if completion.usage.reasoning_tokens:
        return min(1.0, completion.usage.reasoning_tokens / max(1, made))
    chars = len(completion.reasoning)
    return chars / (chars + len(completion.text)) if chars else 0.0


def is_known(finish_reason: str) -> bool:
    """True for a finish reason of one of the four kinds; with any other the answer may be half of one."""
    return finish_reason in DONE_REASONS or finish_reason in CUT_REASONS or finish_reason in REFUSAL_REASONS


def told_reason(finish_reason: str) -> str:
    """Return a reason as it can be shown: whoever sends one that is no word may put a prompt into it."""
    return repr(finish_reason) if _WORD.fullmatch(finish_reason) else "that is no word"


def too_short(
    answer: str, ran_ms: float, norms: Norms, *, is_cut: bool = False, most_tokens: int | None = None
) -> bool:
    """Tell whether an answer avoids its task: far shorter than usual, and faster too.

    An answer that used up its tokens avoids nothing, and a task that asks for few of them wants a short one.

    Weakness: a question that has a short answer in a class of long ones looks the same. So this is a suspicion, which
    other bots' answers to the same task confirm or not.

    Args:
        answer: The bot's answer.
        ran_ms: Time at work.
        norms: What is usual for the task's kind.
        is_cut: It stopped at its token limit.
        most_tokens: Longest answer that the task itself asks for; None: its pool's.
    """
    usual = norms.chars if most_tokens is None else min(norms.chars, CHARS_PER_TOKEN * most_tokens)
    if is_cut or norms.tasks < MIN_NORM_TASKS or usual < MIN_NORM_CHARS or len(answer) >= SHORT_SHARE * usual:
        return False
    return norms.ran_ms < MIN_NORM_MS or ran_ms < FAST_SHARE * norms.ran_ms


def _empty(finish_reason: str, *, is_spent: bool) -> Judgement:
    if is_spent:
        told = (
            "spent: expected an answer, got none: the model has used up its output tokens, most likely by thinking; "
            "raise max_output_tokens, or lower its effort"
        )
        error = BadAnswer(told, fault=Fault.SPENT)
        error.blame = "configuration"
        return Judgement(error, spent=True)
    told = f"empty: expected an answer, got no text (finish reason {finish_reason!r})"
    return Judgement(BadAnswer(told, fault=Fault.EMPTY), retry=True)


def _refuses(text: str) -> bool:
    opening = text.strip()[:REFUSAL_MAX_CHARS].lower().replace("’", "'")
    if not opening.startswith(_BEGINNINGS):  # as nearly all answers
        return False
    for apology in APOLOGIES:
        opening = opening.removeprefix(apology)
    return opening.startswith(REFUSALS)


def broken_off(completion: Completion) -> ProviderUnavailable:
    """Return what half an answer is: its provider's failure, which is paid."""
    reason = told_reason(completion.finish_reason)
    error = ProviderUnavailable(f"expected a whole answer, got one that broke off (finish reason {reason})")
    error.usage = completion.usage if completion.usage.total_tokens else None
    return error
