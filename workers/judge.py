"""Is this a usable answer? Judged by rules that need no second model: empty, refused, cut off.

Pure. Whether an answer is right is not judged here; nor is it charged to anybody here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.errors import BadAnswer

#: Finish reasons of an answer that stopped at its token limit (OpenAI and Anthropic spelling).
CUT_REASONS = frozenset({"length", "max_tokens"})
#: Finish reasons by which the provider itself says that it refused (OpenAI and Anthropic spelling).
REFUSAL_REASONS = frozenset({"content_filter", "refusal"})
#: Characters beyond which an answer is never taken for a refusal: models explain at length, refuse in brief.
REFUSAL_MAX_CHARS = 400

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer is worth: `error` is None when it is usable; `degraded` when it is usable but cut off.

    `retry` is True when the same question may well get a usable answer the next time.
    """

    error: BadAnswer | None = None
    degraded: bool = False
    retry: bool = False


def judge(text: str, finish_reason: str) -> Verdict:
    """Judge one answer.

    Weakness: the refusal rule knows English openings only and errs towards "not a refusal", so it misses some; a
    short answer that quotes a refusal word for word from its first letter is taken for one.

    Args:
        text: The model's answer.
        finish_reason: Why the model stopped, as the provider spells it.
    """
    if finish_reason in REFUSAL_REASONS:
        return Verdict(
            BadAnswer(f"refused: expected an answer, got finish reason {finish_reason!r}; change the prompt")
        )
    if not text.strip():
        reason = f"empty: expected an answer, got no text (finish reason {finish_reason!r})"
        hint = "; raise max_output_tokens" if finish_reason in CUT_REASONS else ""
        return Verdict(BadAnswer(reason + hint), retry=True)
    if len(text) <= REFUSAL_MAX_CHARS and _refuses(text):
        return Verdict(BadAnswer("refused: expected an answer, got the wording of a refusal; change the prompt"))
    return Verdict(degraded=finish_reason in CUT_REASONS)


def _refuses(text: str) -> bool:
    opening = text.strip()[:REFUSAL_MAX_CHARS].lower().replace("’", "'")
    for apology in APOLOGIES:
        opening = opening.removeprefix(apology)
    return opening.startswith(REFUSALS)
