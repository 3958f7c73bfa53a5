"""What the body of a failed call says, wherever it says it: JSON of any shape, a list, a stream, a page, plain text.

Vendors put an error under `error`, `errors`, `detail`, `message`, into the choice, into a string of JSON that a proxy
hands on, or into an event of a stream. Here all of these become one `Said`. What of it may be shown is decided in
`problem.py`, what it means in `verdict.py`. Pure; any bytes have a reading.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.workers.providers.wordings import FILTER_CODES

#: Largest error body that is read at all, in bytes.
MAX_BODY_BYTES = 1024 * 1024
#: How deep errors are looked for within errors, and how many of them are read.
MAX_DEPTH, MAX_LAYERS = 8, 40
#: Characters of a page in which its title is looked for.
MAX_PAGE_CHARS = 4000
#: Characters of one message that are read.
MAX_MESSAGE_CHARS = 2000

#: Names under which an error may lie within another thing, in the order in which they are looked at.
_INNER = (
    "error", "errors", "detail", "details", "message", "metadata", "raw", "response", "body", "data", "fault", "cause",
    "base_resp", "innererror", "inner_error", "exception", "promptFeedback", "provider_error", "upstream_error",
    "content_filter_result", "headers",
)  # fmt: skip
_MESSAGES = (
    "message", "Message", "detail", "msg", "error", "error_message", "errorMessage", "error_msg", "error_description",
    "status_msg", "description", "faultstring", "title", "reason", "raw", "blockReasonMessage",
)  # fmt: skip
_TYPES = ("type", "error_type", "errorType", "__type", "status", "blockReason")
_CODES = ("code", "error_code", "errorCode", "errorcode", "reason", "status_code", "statusCode")
_STATUSES = ("code", "status", "status_code", "statusCode", "http_status", "httpStatus", "http_code", "error_code")
_PARAMS = ("param", "parameter", "field")
_WORDS = (*_TYPES, *_CODES, "error", "error_subtype", "name", "quotaId", "rate_limit_type", "limit_type", "title")
#: Words that say nothing.
_EMPTY = frozenset({"", "none", "null", "error", "errors", "exception", "failed", "failure", "false", "true"})
#: What stands for "no error".
_FINE = frozenset({"0", "200", "ok", "success", "succeeded", "none", "null", "false", "no error"})

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:/# -]{0,78}")
_FIELD = re.compile(
    r"""['"](message|msg|type|code|status|param|reason)['"]\s*:\s*(?:(['"])(.*?)(?<!\\)\2|(\d+))""", re.DOTALL
)
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """What a body says.

    Args:
        messages: Sentences, the outermost first, each once.
        type, code, param: As the innermost error spells them, empty when absent.
        words: Every type, code, status and reason in it, in one spelling: `rate_limit_exceeded`.
        status: The HTTP status that it names as a number.
        fields: Of all its layers, the innermost first: where delays are looked for.
        is_page: True for HTML.
    """

    messages: tuple[str, ...] = ()
    type: str = ""
    code: str = ""
    param: str = ""
    words: frozenset[str] = frozenset()
    status: int | None = None
    fields: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    is_page: bool = False

    @property
    def tells(self) -> bool:
        """True when it says something of an error, and is not merely JSON of another kind."""
        return bool(self.messages) or self.status is not None or any(map(FILTER_CODES.search, self.words))


def read_said(raw: bytes) -> Said:
    """Return what an error's body says; an empty `Said` when it says nothing that can be read."""
    if not raw or len(raw) > MAX_BODY_BYTES:
        return Said()
    text = raw.decode("utf-8", "replace").lstrip("\ufeff").strip()
    value = _value(text)
    if value is None:
        return _of_text(text)
    return said_in(value)


def said_in(value: object) -> Said:
    """Return what a JSON value says of an error."""
    layers = [layer for _, layer in zip(range(MAX_LAYERS), _layers(value, MAX_DEPTH), strict=False)]
    inward = layers[::-1]
    messages = dict.fromkeys(message for layer in layers for message in _messages(layer))
    return Said(
        messages=tuple(messages),
        type=_first(inward, _TYPES),
        code=_first(inward, _CODES),
        param=_first(inward, _PARAMS) or _place(inward),
        words=frozenset(spelled(word) for layer in layers for word in _words(layer)) - _EMPTY,
        status=next((status for layer in inward if (status := _status(layer)) is not None), None),
        fields=tuple(inward),
    )


def read_events(raw: bytes) -> dict[str, Any] | None:
    """Return the event of a stream that counts, where an answer in one piece was expected.

    That is an error, else the last event that holds a whole answer; with the usage that any event told. None when
    there is neither.
    """
    if len(raw) > MAX_BODY_BYTES:
        return None
    usage: object = None
    answer: dict[str, Any] | None = None
    for event in _events(raw.decode("utf-8", "replace")):
        inner = event.get("message")
        usage = event.get("usage") or (inner.get("usage") if isinstance(inner, dict) else None) or usage
        if carries_error(event):
            return event if event.get("usage") else {**event, "usage": usage}
        if _is_whole(event):
            answer = event
    return answer and (answer if answer.get("usage") else {**answer, "usage": usage})


def carries_error(answer: Mapping[str, Any]) -> bool:
    """True when a 2xx answer holds an error beside, in, or instead of what the wire says."""
    if _is_error(answer.get("error")) or answer.get("type") in ("error", "response.failed"):
        return True
    choices = answer.get("choices")
    if isinstance(choices, list) and choices:
        return isinstance(choices[0], dict) and _is_error(choices[0].get("error"))
    return False


def _is_error(value: object) -> bool:
    """False for what some servers put beside an answer: `{"code": 0, "message": "success"}`."""
    if not value:
        return False
    said = value.values() if isinstance(value, dict) else (value,)
    return any(one and str(one)[:20].lower() not in _FINE for one in said)


def spelled(word: str) -> str:
    """Return a type or code in one spelling: `RateLimitReached`, `RATE_LIMIT_REACHED` -> `rate_limit_reached`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word)
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def _value(text: str) -> object | None:
    """Return the JSON of a body: as it is, in a stream, or in a string; None when there is none."""
    value = _json(text)
    if value is None and re.search(r"^(data|event)\s*:", text, re.MULTILINE):
        events = list(_events(text))
        value = next((event for event in events if carries_error(event)), events[-1] if events else None)
    if value is None and "\n" in text:  # JSON lines, or JSON behind comments that keep a connection alive
        lines = (line for line in text.splitlines() if line.startswith(("{", "[")))
        value = next((found for line in lines if (found := _json(line)) is not None), None)
    return (_json(value) or value) if isinstance(value, str) else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _of_text(text: str) -> Said:
    text = text[:MAX_PAGE_CHARS]
    is_page = text[:200].lstrip().lower().startswith(("<!doctype", "<html", "<head", "<body", "<?xml"))
    if is_page:
        title = _TITLE.search(text)
        text = _TAGS.sub(" ", title.group(2) if title else text)
    message = " ".join(html.unescape(text).split())[:MAX_MESSAGE_CHARS]
    if not message or message.count("\ufffd") > len(message) // 10:  # nothing, or no text at all
        return Said(is_page=is_page)
    return Said(messages=(message,), is_page=is_page)


def _events(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream of server-sent events; an event named `error` becomes an error."""
    for block in re.split(r"\r?\n\r?\n", text):
        lines = [line.partition(":") for line in block.splitlines()]
        name = "".join(value.strip() for key, _, value in lines if key == "event")
        data = "\n".join(value.strip() for key, _, value in lines if key == "data")
        value = _json(data) if data else None
        if name == "error" and not (isinstance(value, dict) and value.get("error")):
            yield {"error": value or data or name}
        elif isinstance(value, dict):
            yield value


def _is_whole(event: Mapping[str, Any]) -> bool:
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return isinstance(choices[0].get("message"), dict)
    return event.get("type") == "message"


def _layers(value: object, depth: int, *, in_text: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield every object that may say something of the error, the outermost first."""
    if depth == 0:
        return
    if isinstance(value, str):
        head = value[:MAX_MESSAGE_CHARS]
        if not in_text:
            yield {"message": head}
        yield from _layers(_inside(head), depth - 1)
    elif isinstance(value, list):
        for item in value[:4]:
            yield from _layers(item, depth - 1)
    elif isinstance(value, dict):
        yield value
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            yield from _layers(choices[0].get("error"), depth - 1)
        for name in _INNER:
            yield from _layers(value.get(name), depth - 1, in_text=True)


def _inside(message: str) -> object:
    """Return what proxies put into a message: the JSON, or the Python dict, that they got themselves."""
    start = message.find("{")
    if start < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(message, start)[0]
    except (ValueError, RecursionError):
        return {name: text or number for name, _, text, number in _FIELD.findall(message[start:])} or None


def _messages(layer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the first sentence of a layer; with a proxy's JSON in it only what stands before."""
    place = layer.get("loc")
    for name in _MESSAGES:
        text = layer.get(name)
        if not isinstance(text, str) or not text.strip():
            continue
        text = text[:MAX_MESSAGE_CHARS]
        if isinstance(_inside(text), dict):
            text = text[: text.find("{")].rstrip(" -:'\"b")
        if isinstance(place, list):
            text = f"{'.'.join(str(part) for part in place[:6])}: {text}"
        if text.strip():
            yield " ".join(text.split())
            return


def _first(layers: list[Mapping[str, Any]], names: tuple[str, ...]) -> str:
    """Return the first value, by layer and then by name, that is a word of some meaning."""
    for layer in layers:
        for name in names:
            value = layer.get(name)
            if type(value) is int or (isinstance(value, str) and spelled(value[:80]) not in _EMPTY):
                return str(value)
    return ""


def _place(layers: list[Mapping[str, Any]]) -> str:
    """Return the last name of a `loc`, as validators of request bodies give it."""
    for layer in layers:
        place = layer.get("loc")
        if isinstance(place, list) and place and isinstance(place[-1], str):
            return place[-1]
    return ""


def _words(layer: Mapping[str, Any]) -> Iterator[str]:
    for name in _WORDS:
        value = layer.get(name)
        if isinstance(value, str) and _WORD.fullmatch(value):
            yield value


def _status(layer: Mapping[str, Any]) -> int | None:
    for name in _STATUSES:
        value = layer.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if type(value) is int and 400 <= value < 600:
            return value
    return None
