"""What a task's story says of the setting under which it was done: what a rollout tried, which model was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.engine.answers import choices, rollouts
from fleet.models import BotResult


def told_setting(result: BotResult) -> Iterator[str]:
    """Yield what was otherwise than the bot and its pool say; nothing of most tasks."""
    chosen = result.sent.get(choices.SENT)
    if isinstance(chosen, Mapping):
        yield _told_choice(chosen)
    if rollouts.SENT in result.sent:
        yield f"its bot worked under rollout {result.sent[rollouts.SENT]} (`fleet rollout show {result.pool}`)"


def _told_choice(chosen: Mapping[str, object]) -> str:
    if not chosen.get("model"):
        return f"its bot asked its own model: {chosen.get('why')}"
    return (
        f"it was asked of {chosen['model']}, the {chosen.get('why')}: right in {chosen.get('right', 0):.0%} at least, "
        f"by {chosen.get('grades', 0):,} grades"
    )
