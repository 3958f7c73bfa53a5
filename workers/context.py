"""Tokens: counting them by a stated estimate, and cutting a conversation to a bot's context window.

Pure text in, pure text out. What a provider really billed comes back in `Completion.usage` and is never guessed here.

Why an estimate: exact counting needs the model's vocabulary, and no light, maintained library ships one for offline
use (tiktoken downloads it at first use, rs-bpe weighs 48 MB and has had a single release); not every vendor
publishes one at all.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from fleet.conversation import FilePart, ImagePart, Kept, Message, Part, TextPart, ThinkingPart, marks_of

#: Tokens that a chat format adds around each message (role and separators).
MESSAGE_OVERHEAD_TOKENS = 4
#: Tokens that a chat format adds to a conversation (start of the answer).
CONVERSATION_OVERHEAD_TOKENS = 3
#: Letters of one word that count as one token. 6 puts the mean of English prose 8% above o200k; 8 puts it below.
WORD_PIECE = b"a" * 6
#: Digits that count as one token.
DIGIT_PIECE = b"0" * 3
#: Spaces in a row that count as one token (indentation); a single space belongs to the word after it.
SPACE_PIECE = b" " * 4
#: Most tokens that `count_tokens` gives per character: the bound that lets short texts pass uncounted.
TOKENS_PER_CHAR = 2
#: Most characters that `count_tokens` takes for one token ("a word of five, three spaces"): the bound beyond which a
#: text need not be counted to know that it does not fit.
CHARS_PER_TOKEN = 8
#: Share of a window that the answer may reserve: the rest is always left to the conversation.
RESERVED_SHARE = 0.5
#: Share of the room for input that the system prompt may take before its middle is cut.
SYSTEM_SHARE = 0.5
#: Cuts of a text by the tokens that are too many, before larger ones: it keeps the time linear, whatever the text.
EXACT_CUTS = 8
#: Tokens of an image: the most that Anthropic counts for one, and about what OpenAI counts for a large one; and of one
#: that is looked at in low detail.
IMAGE_TOKENS, LOW_IMAGE_TOKENS = 1600, 85
#: Characters of a file's base64 that make up one token: a page of a PDF has 50 kB or more, and 2,000 tokens.
FILE_CHARS_PER_TOKEN = 30
#: Least tokens of each message to which the turns of a tool are cut before the oldest of them go.
LEAST_TURN_TOKENS = 48
#: Roles whose messages stand at the front and stay.
INSTRUCTING = frozenset({"system", "developer"})
#: System prompts whose tokens are kept (count), and how long one may be (characters).
KEPT_PROMPTS, KEPT_CHARS = 1000, 8000
#: Longer parts of system prompts, the documents of tasks, whose tokens are kept (count).
KEPT_DOCUMENTS = 16
#: Stands where the middle of a text was cut out.
CUT_MARKER = "\n[cut]\n"


def count_tokens(text: str) -> int:
    """Estimate the tokens of `text`, erring on the high side.

    Each byte becomes its class (letter, digit, space, other), and runs of classes are counted with C-speed string
    functions: about 5 us for 300 characters, linear in length (about 40 ms for 4 MB). Measured against the o200k
    vocabulary: English questions +8%, model answers +8%, essays +28%, Python source +55%, JSON +10%, digits 0%;
    against cl100k: Chinese, Japanese and Korean -5% to +5%, Russian +18%.

    Weakness: one short text of many rare names may be 20% under, base64 is 24% under; on older vocabularies also
    German 17%, Hindi 21% and Arabic 37%. On newer ones other scripts than Latin are 1.3 to 3 times over.

    Args:
        text: Any text, also empty.

    Returns:
        Tokens, at least 0 and at most `TOKENS_PER_CHAR` times the characters.
    """
    classes = b" " + text.encode("utf-8", "replace").translate(_CLASSES, _CONTINUATIONS).replace(DIGIT_PIECE, b".")
    words = classes.translate(_ONLY_LETTERS)
    tokens = words.count(b" a") + words.count(WORD_PIECE) + classes.count(b"aA")
    tokens += classes.translate(_ONLY_DIGITS).count(b" 0") + classes.count(b".") + classes.count(SPACE_PIECE)
    return tokens if text.isascii() else tokens + -(-classes.count(b"b") // 2) + 2 * classes.count(b"e")


def count_message_tokens(messages: Sequence[Message]) -> int:
    """Estimate the input tokens of a conversation, with what the chat format adds."""
    return CONVERSATION_OVERHEAD_TOKENS + sum(map(_message_tokens, messages))


def room_for_input(window_tokens: int, reserve_output_tokens: int) -> int:
    """Return the tokens of a context window that a conversation may take.

    Args:
        window_tokens: The bot's context window, at least 64.
        reserve_output_tokens: Tokens kept free for the answer; at most half of the window is kept.
    """
    reserved = min(reserve_output_tokens, int(window_tokens * RESERVED_SHARE))
    return window_tokens - reserved - CONVERSATION_OVERHEAD_TOKENS


def fit(
    messages: Sequence[Message], window_tokens: int, reserve_output_tokens: int, *, beside_tokens: int = 0
) -> tuple[Message, ...]:
    """Cut a conversation to a context window. Never fails, always gives the same cut for the same input.

    The system messages become one at the front and stay; the newest turns stay; the oldest go first; what is left
    begins with a user's turn. When the last user's turn alone does not fit, its middle is cut out, because a
    question most often stands at the head or the tail. The same happens to a system prompt of more than half the room.
    Calls of tools and their results stay together: behind the last user's turn long texts are cut first, then the
    oldest calls go with their results. Images and files are never cut out of a message that stays.

    Args:
        messages: The conversation, oldest first.
        window_tokens: The bot's context window, at least 64.
        reserve_output_tokens: Tokens kept free for the answer; at most half of the window is kept.
        beside_tokens: Tokens kept free for what is added afterwards and must not be cut.

    Returns:
        Messages of at most `window_tokens - reserve - beside` tokens by `count_message_tokens`.
    """
    room = room_for_input(window_tokens, reserve_output_tokens) - beside_tokens
    system, turns = _split(messages)
    if _fits(system + turns, room):
        return system + turns
    share = int(room * SYSTEM_SHARE) if turns else room
    cut_system = tuple(_cut(message, share // len(system)) for message in system)
    return cut_system + _newest(turns, room - sum(map(_message_tokens, cut_system)))


def lost_tokens(given: Sequence[Message], kept: Sequence[Message]) -> int:
    """Return the estimated tokens that `fit` cut from `given`; 0 when nothing was."""
    if len(given) == len(kept) and all(map(operator.is_, given, kept)):
        return 0
    whole = sum(_split(given), ())
    if len(whole) == len(kept) and all(a is b or a == b for a, b in zip(whole, kept, strict=True)):
        return 0
    return max(1, count_message_tokens(whole) - count_message_tokens(kept))


def reshuffle(messages: Sequence[Message], seed: int) -> tuple[Message, ...]:
    """Return a conversation with the documents in it in another order; the same seed always gives the same one.

    Messages of one role in a row are taken for documents or notes that stand side by side; a dialogue has none. The
    last user's message is the question and stays where it is. What comes first weighs more with every model, so
    another order is a different context with the same content. It costs the provider's prefix cache its hit.

    Args:
        messages: The conversation, oldest first.
        seed: Decides the order.
    """
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=len(messages))
    draw = random.Random(seed)
    shuffled: list[Message] = []
    for _, group in groupby(enumerate(messages), key=lambda item: (item[1].role, item[0] == last)):
        run = [message for _, message in group]
        draw.shuffle(run)
        shuffled += run
    return tuple(shuffled)


def cut_middle(text: str, max_tokens: int) -> str:
    """Return `text` with as much of its middle replaced by a marker as it takes to be `max_tokens` or less.

    Two thirds of what stays is the head, one third the tail.
    """
    tokens = _tokens_within(text, max_tokens)
    if tokens <= max_tokens:
        return text
    kept, cut, tries = min(len(text), CHARS_PER_TOKEN * max(1, tokens)), text, 0
    while tokens > max_tokens and kept > 0:
        tries += 1
        # In a text whose tokens stand at its ends, cutting the middle saves few: then an eighth goes at a time.
        least = 1 if tries <= EXACT_CUTS else max(1, kept // 8)
        kept = min(kept - least, kept * max_tokens // tokens)
        tail = kept // 3
        cut = text[: kept - tail] + CUT_MARKER + text[len(text) - tail :]
        tokens = count_tokens(cut)
    return cut if kept > 0 else ""


def _message_tokens(message: Message) -> int:
    if message.role == "system" and not isinstance(message.content, str):
        return _fixed_tokens(message) + sum(map(_part_tokens, message.content))
    text = message.text
    count = _kept_tokens if message.role == "system" and len(text) <= KEPT_CHARS else count_tokens
    return count(text) + _fixed_tokens(message)


def _part_tokens(part: Part) -> int:
    """Count the text of a part of a system prompt; a document that many tasks share is counted once."""
    if not isinstance(part, TextPart):
        return 0
    count = _kept_tokens if len(part.text) <= KEPT_CHARS else _document_tokens
    return 1 + count(part.text)


@lru_cache(maxsize=KEPT_DOCUMENTS)
def _document_tokens(text: str) -> int:
    return count_tokens(text)


@lru_cache(maxsize=KEPT_PROMPTS)
def _kept_tokens(prompt: str) -> int:
    """Count a system prompt once: a bot's is the same with each of its tasks."""
    return count_tokens(prompt)


def _fixed_tokens(message: Message) -> int:
    """Return the tokens of a message beside its text."""
    return MESSAGE_OVERHEAD_TOKENS if _is_text(message) else MESSAGE_OVERHEAD_TOKENS + _other_tokens(message)


def _is_text(message: Message) -> bool:
    """True when a message is nothing but its text."""
    return type(message.content) is str and not message.tool_calls


def _other_tokens(message: Message) -> int:
    """Estimate what a message holds beside its text. Weakness: an image or a file by its address may be of any size."""
    tokens = sum(MESSAGE_OVERHEAD_TOKENS + count_tokens(call.name + call.arguments) for call in message.tool_calls)
    for part in message.content if isinstance(message.content, tuple) else ():
        if isinstance(part, ImagePart):
            tokens += LOW_IMAGE_TOKENS if part.detail == "low" else IMAGE_TOKENS
        elif isinstance(part, FilePart):
            tokens += max(IMAGE_TOKENS, len(part.data or "") // FILE_CHARS_PER_TOKEN)
        elif isinstance(part, ThinkingPart):
            tokens += count_tokens(part.text)
    return tokens


def _tokens_within(text: str, room: int) -> int:
    """Return the tokens of `text`, or `room + 1` without counting when it has surely more than `room`."""
    return room + 1 if len(text) > CHARS_PER_TOKEN * (max(0, room) + 1) else count_tokens(text)


def _fits(messages: Sequence[Message], room: int) -> bool:
    """Decide by the number of characters first: most conversations are far below their window."""
    chars = sum([len(message.text) for message in messages])
    if chars * TOKENS_PER_CHAR + sum(map(_fixed_tokens, messages)) <= room:
        return True
    return _sum_within(messages, room) <= room


def _sum_within(messages: Sequence[Message], room: int) -> int:
    """Return the tokens of `messages`; more than `room`, but not exact, when they surely have more."""
    return sum(_fixed_tokens(message) + _tokens_within(message.text, room) for message in messages)


def _split(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return the messages that instruct, those of the system as one, and the other turns."""
    system = tuple([message for message in messages if message.role == "system"])
    turns = tuple([message for message in messages if message.role not in INSTRUCTING])
    if len(system) > 1:
        system = (_as_one(system),)
    if len(system) + len(turns) < len(messages):
        system += tuple(message for message in messages if message.role == "developer")
    return system, turns


def _as_one(system: Sequence[Message]) -> Message:
    """Return messages of the system as one; in as many parts where places of them are marked for a cache."""
    if not any(True for _ in marks_of(system)):
        return Message(role="system", content="\n\n".join(message.text for message in system))
    *first, last = system
    texts = (part for message in first for part in _texts(message, message.cache))
    return Message(role="system", content=(*texts, *_texts(last, None)), cache=last.cache)


def _texts(message: Message, cache: Kept | None) -> tuple[TextPart, ...]:
    """Return the texts of a message as parts, the last of them with its mark."""
    if isinstance(message.content, str):
        return (TextPart(text=message.content, cache=cache),)
    texts = [part for part in message.content if isinstance(part, TextPart)]
    if texts and cache is not None:
        texts[-1] = texts[-1].model_copy(update={"cache": cache})
    return tuple(texts)


def _newest(turns: Sequence[Message], room: int) -> tuple[Message, ...]:
    """Return the newest turns within `room`, from a user's turn on; the last user's turn stays, cut if need be."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=len(turns) - 1)
    room_before = room - _sum_within(turns[last:], room)
    if room_before < 0:
        return _tail(turns[last:], room)
    first = last
    for i in range(last - 1, -1, -1):
        room_before -= _sum_within(turns[i : i + 1], room)
        if room_before < 0:
            break
        first = i if turns[i].role == "user" else first
    return tuple(turns[first:])


def _tail(turns: Sequence[Message], room: int) -> tuple[Message, ...]:
    """Return the last user's turn and the calls of tools behind it within `room`: all cut alike, else the oldest go."""
    question, *behind = turns
    while behind and any(turn.tool_calls for turn in behind):
        kept = (question, *behind)
        at_most = _level([_tokens_within(turn.text, room) for turn in kept], room - sum(map(_fixed_tokens, kept)))
        if at_most >= LEAST_TURN_TOKENS:
            return tuple(_cut(turn, _fixed_tokens(turn) + at_most) for turn in kept)
        after = next((i for i, turn in enumerate(behind) if i and turn.role != "tool"), len(behind))
        behind = behind[after:]
    return (_cut(question, room),)


def _level(sizes: list[int], room: int) -> int:
    """Return the size to which the largest are to be cut so that all fit into `room`; below 1: they never do."""
    for i, size in enumerate(sorted(sizes)):
        level = room // (len(sizes) - i)
        if size > level:
            return level
        room -= size
    return max(sizes, default=0)


def _cut(message: Message, max_tokens: int) -> Message:
    """Cut the middle out of a message's text; of several pieces of text the longest give first."""
    room = max_tokens - _fixed_tokens(message)
    if isinstance(message.content, str):
        content = cut_middle(message.content, room)
        return message if content is message.content else message.model_copy(update={"content": content})
    texts = [part.text for part in message.content if isinstance(part, TextPart)]
    at_most = _level([count_tokens(text) for text in texts], room - len(texts))
    if sum(map(count_tokens, texts)) <= room:
        return message
    parts = (
        part.model_copy(update={"text": cut_middle(part.text, at_most)}) if isinstance(part, TextPart) else part
        for part in message.content
    )
    return message.model_copy(update={"content": tuple(parts)})


def _class_of(byte: int) -> str:
    """Class of a UTF-8 byte: a letter, A capital, 0 digit, space, . other; b, e lead a 2- or 4-byte character."""
    if byte >= 0x80:
        return "b" if byte < 0xE0 else "." if byte < 0xF0 else "e"
    char = chr(byte)
    if char.isalpha():
        return "A" if char.isupper() else "a"
    return "0" if char.isdigit() else " " if char in " \r\t\v\f" else "."


_CLASSES = bytes(ord(_class_of(byte)) for byte in range(256))
_CONTINUATIONS = bytes(range(0x80, 0xC0))
_ONLY_LETTERS = bytes(ord("a") if byte in b"aA" else ord(" ") for byte in range(256))
_ONLY_DIGITS = bytes(byte if byte == ord("0") else ord(" ") for byte in range(256))
