"""How much of a conversation fits: the bot's window, what its model takes, and how both count. Pure."""

from __future__ import annotations

from fleet.conversation import Message, TextPart
from fleet.errors import ContextTooLong, DocumentsTooLarge
from fleet.lessons import Measure
from fleet.workers.context import CONVERSATION_OVERHEAD_TOKENS, INSTRUCTING, fit, lost_tokens, room_for_input
from fleet.workers.document_ports import SharedText

#: Least estimated tokens for a conversation: with less room it isn't cut but refused.
LEAST_ROOM_TOKENS = 64
#: Share of a conversation that is sent again when its model says that it is too long, and not by how much.
TIGHTER = 0.6
#: Share of the room that a model's figures give which is used: our estimate is off by some percent from text to text.
FIGURES_TRUSTED = 0.95


def room_of(window_tokens: int, wanted_tokens: int, measure: Measure) -> int:
    """Return the estimated tokens for a conversation: of the bot's window, and of what its model takes at all.

    Args:
        window_tokens: The bot's.
        wanted_tokens: Longest answer.
        measure: How its model counts.
    """
    room = room_for_input(window_tokens, wanted_tokens)
    if measure.window_tokens is not None:
        left = measure.window_tokens - wanted_tokens
        room = min(room, left if left >= LEAST_ROOM_TOKENS else measure.window_tokens // 2)
    return int(room / measure.ratio)


def tighter_room(error: ContextTooLong, sent_tokens: int, wanted_tokens: int, measure: Measure) -> int:
    """Return the estimated tokens to which a conversation is cut that its model says is too long.

    Args:
        error: What it says, with its figures.
        sent_tokens: What was sent, by our estimate.
        wanted_tokens: Longest answer.
        measure: How the model counts.
    """
    window = error.window_tokens or measure.window_tokens
    true = error.true_input_tokens or round(sent_tokens * measure.ratio)
    if window is None or (error.true_input_tokens is None and true + wanted_tokens <= window):
        return int(sent_tokens * TIGHTER)  # it says nothing that explains it
    left = (window - wanted_tokens) * sent_tokens / max(1, true)
    return int(min(left, sent_tokens) * FIGURES_TRUSTED)


def cut(messages: tuple[Message, ...], room: int, beside_tokens: int) -> tuple[tuple[Message, ...], int]:
    """Return a conversation cut to `room` tokens, and how many were cut from it.

    Args:
        messages: The conversation.
        room: Estimated tokens for all that is sent.
        beside_tokens: Those of them for what is told beside it.
    """
    kept = fit(messages, room + CONVERSATION_OVERHEAD_TOKENS, 0, beside_tokens=beside_tokens)
    return kept, lost_tokens(messages, kept)


def check_documents(shared: SharedText, room: int) -> None:
    """Check that a task's documents, which are never cut, leave room for something beside them.

    Raises:
        DocumentsTooLarge: They do not.
    """
    if shared.tokens + LEAST_ROOM_TOKENS > room:
        raise DocumentsTooLarge(
            f"context: expected documents that leave room in the window of the bot's model, got {shared.tokens:,} "
            f"tokens of them for {max(0, room):,}; they are never cut: name fewer, or a pool of larger "
            "`persona.context_windows_tokens`"
        )


def with_documents(kept: tuple[Message, ...], shared: SharedText) -> tuple[Message, ...]:
    """Return a conversation with documents before everything that it says, whoever's persona it is.

    So all bots' prompts begin alike, and what one has sent is in the provider's cache for the others. All that the
    system says stays one message, for not every model takes several.
    """
    documents, first = TextPart(text=shared.text), kept[0] if kept else None
    if first is None or first.role not in INSTRUCTING:
        return (Message(role="system", content=(documents,)), *kept)
    said = (TextPart(text=first.content),) if isinstance(first.content, str) else first.content
    return (first.model_copy(update={"content": (documents, *said)}), *kept[1:])
