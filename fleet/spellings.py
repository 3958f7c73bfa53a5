"""How vendors spell what is said in a chat: read into the words of `fleet/conversation.py`.

Pure. OpenAI's chat completions and responses, and Anthropic's messages; what came in our own words stays as it is.
Nothing is fetched: an address is handed on, and only http(s) and data addresses are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fleet import bounds
from fleet.quoting import brief, quote

#: Types of parts that are text.
_TEXTS = frozenset({"text", "input_text", "output_text"})
#: Fields of a message that are ours; others must be empty, or be known to say nothing.
_OURS = frozenset({"role", "content", "tool_calls", "tool_call_id", "is_error", "cache"})
#: Where vendors mark a place up to which their caches keep a prompt.
_MARKS = ("cache_control", "prompt_cache_breakpoint")
#: Their words for how long -> ours.
_KEPT = {None: "5m", "5m": "5m", "30m": "5m", "1h": "1h", "12h": "1h"}
#: Fields of an answer that its SDK writes out, and that say nothing to a model.
_IDLE = frozenset({"id", "type", "status", "annotations", "audio", "refusal", "function_call", "name", "phase"})
#: Types of parts that are images or files, and their fields that are read.
_MEDIA = frozenset({"image_url", "input_image", "image", "file", "input_file", "document"})
_CARRIED = frozenset({
    "type", "image_url", "detail", "source", "url", "data", "media_type", "file", "filename", "file_data", "file_url",
    "file_id", "title", "name", "cache", *_MARKS,
})  # fmt: skip
#: Types of a conversation's items that are messages.
_MESSAGES = (None, "message")
#: What an assistant's list of parts may end with, and a user's.
_CALLS, _RESULTS = ("tool_use", "function_call"), ("tool_result", "function_call_output")

Fields = dict[str, Any]


def read_messages(messages: object) -> object:
    """Return a conversation in our words, within its bounds; what isn't a list or holds `Message`s stays as it is.

    One message of a vendor's may become several: Anthropic puts results of tools into the user's turn.

    Raises:
        ValueError: Naming the message and the part that is wrong; it quotes nothing of what was said.
    """
    if not isinstance(messages, list | tuple):
        return messages
    if len(messages) <= bounds.MAX_MESSAGES and all(map(_is_plain, messages)):
        return messages  # most conversations, in 0.1 us a message
    bounds.check_messages(messages)
    found: list[object] = []
    for number, message in enumerate(messages):
        if _is_plain(message) or not isinstance(message, Mapping):
            found.append(message)
        else:
            found += _read_item(message, str(number))
    return _with_calls_joined(found)


def _is_plain(message: object) -> bool:
    """True for what needs no reading: a role and a text."""
    return isinstance(message, dict) and len(message) == 2 and type(message.get("content")) is str


def _read_item(item: Mapping[str, Any], where: str) -> Iterator[Fields]:
    kind = item.get("type")
    if kind in _CALLS:
        yield {"role": "assistant", "tool_calls": [read_tool_call(item, where)]}
    elif kind in _RESULTS:
        yield _result(item, where)
    elif kind in _MESSAGES:
        yield from _read_message(item, where)
    else:
        raise ValueError(f"{where}.type: expected a message or a call of a tool, got {quote(kind)}")


def _read_message(message: Mapping[str, Any], where: str) -> Iterator[Fields]:
    """Yield one message, after those that its parts are."""
    role, content = message.get("role"), message.get("content")
    kept = {name: value for name, value in message.items() if _says_something(name, value, role)}
    kept |= _some(cache=read_mark(message, where))
    if content is None and (message.get("refusal") or message.get("tool_calls")):
        content = message.get("refusal") or ""
    kept.pop("refusal", None)
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list | tuple):
            raise ValueError(f"{where}.tool_calls: expected a list, got {type(calls).__name__}")
        kept["tool_calls"] = [read_tool_call(call, f"{where}.tool_calls.{n}") for n, call in enumerate(calls)]
    if not isinstance(content, list | tuple):
        yield {**kept, "content": content}
        return
    parts: list[Fields] = []
    last: object = None  # mark of the last part, which is the whole turn's
    for number, part in enumerate(content):
        place = f"{where}.content.{number}"
        last = read_mark(part, place) if isinstance(part, Mapping) else None
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _RESULTS:
            yield _result(part, place)
        elif kind in _CALLS:
            kept["tool_calls"] = [*kept.get("tool_calls", ()), read_tool_call(part, place)]
        else:
            parts.append(read_part(part, place))
    if parts or kept.get("tool_calls") or not content:
        yield {**_some(cache=last), **kept, "content": _content(parts)}


def _says_something(name: str, value: object, role: object) -> bool:
    """True for a field that is ours or must be refused; False for one that is empty, or says nothing to a model."""
    if name in _OURS:
        return bool(value) or name in ("role", "content")
    if value is None or value in ([], ()) or name in _MARKS:
        return False
    return name not in _IDLE or (name == "refusal") or (name == "name" and role != "tool") or name == "function_call"


def _content(parts: list[Fields]) -> str | list[Fields]:
    """Return parts as a message's content, the mark of the last taken off, which is the message's own.

    They become one text when they are texts only, and no place within is marked: not every server takes parts.
    """
    if parts:
        parts[-1].pop("cache", None)
    if all(part["type"] == "text" and "cache" not in part for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _result(block: Mapping[str, Any], where: str) -> Fields:
    """Return the message of a tool's result."""
    content = block.get("content", block.get("output", ""))
    mark = read_mark(block, where)
    if isinstance(content, list | tuple):
        if mark is None and content and isinstance(content[-1], Mapping):
            mark = read_mark(content[-1], where)
        content = _content([read_part(part, f"{where}.content.{n}") for n, part in enumerate(content)])
    found = {"role": "tool", "content": content or "", "tool_call_id": block.get("tool_use_id", block.get("call_id"))}
    return {**found, **_some(cache=mark, is_error=bool(block.get("is_error")))}


def read_mark(block: Mapping[str, Any], where: str) -> object:
    """Return how long a provider's cache is to keep the prompt up to the end of a block; None: it is not marked.

    Raises:
        ValueError: When it is marked in words that nobody knows.
    """
    if "cache" in block:
        return block["cache"]
    name = next((name for name in _MARKS if block.get(name) is not None), None)
    if name is None:
        return None
    told = block[name]
    kind = told.get("type", told.get("mode")) if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or kind not in (None, "ephemeral", "explicit"):
        raise ValueError(f'{where}.{name}: expected {{"type": "ephemeral"}}, got {type(told).__name__} of another kind')
    ttl = told.get("ttl")
    if not isinstance(ttl, str | None) or ttl not in _KEPT:
        raise ValueError(f"{where}.{name}.ttl: expected 5m or 1h, got {quote(ttl)}")
    return _KEPT[ttl]


def _with_calls_joined(messages: list[object]) -> list[object]:
    """Return messages in which an assistant's turn and the calls that came as items of their own are one turn."""
    joined: list[object] = []
    for message in messages:
        last = joined[-1] if joined else None
        if _is_bare_call(message) and isinstance(last, dict) and last.get("role") == "assistant":
            assert isinstance(message, dict)
            joined[-1] = {**last, "tool_calls": [*last.get("tool_calls", ()), *message["tool_calls"]]}
        else:
            joined.append(message)
    return joined


def _is_bare_call(message: object) -> bool:
    return isinstance(message, dict) and "tool_calls" in message and "content" not in message


def read_tool_call(call: object, where: str) -> object:
    """Return a call of a tool in our words.

    Raises:
        ValueError: When it is none of a function.
    """
    if not isinstance(call, Mapping):
        return call
    function = call.get("function")
    if isinstance(function, Mapping):
        if call.get("type") not in (None, "function"):
            raise ValueError(f"{where}.type: expected a function, got {quote(call.get('type'))}")
        return _call(call.get("id"), function.get("name"), function.get("arguments"), call.get("extra_content"))
    if call.get("type") in _CALLS:
        return _call(call.get("call_id", call.get("id")), call.get("name"), call.get("arguments", call.get("input")))
    return call


def _call(name_of_call: object, name: object, arguments: object, extra: object = None) -> Fields:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    found = {"id": name_of_call, "name": name, "arguments": text or "{}"}
    return {**found, "extra_content": extra} if extra else found


def read_part(part: object, where: str) -> Fields:
    """Return one part of a message in our words.

    Raises:
        ValueError: When it is none that Fleet carries: it says which kind came.
    """
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise ValueError(f"{where}: expected a part (an object with `type`), got {type(part).__name__}")
    kind = part.get("type") or ("text" if "text" in part else None)
    mark = _some(cache=read_mark(part, where))
    if kind in _TEXTS or kind == "refusal":
        text = part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise ValueError(f"{where}.text: expected text, got {type(text).__name__}")
        return {"type": "text", "text": text, **mark}
    if kind in _MEDIA:
        _check_all_carried(part, where)
    if kind in ("image_url", "input_image", "image"):
        return {"type": "image", **_read_image(part, where), **mark}
    if kind in ("file", "input_file", "document"):
        return {**_read_file(part, where), **mark}
    if kind in ("thinking", "redacted_thinking"):
        text = part.get("thinking", part.get("text", ""))
        found = {"text": text, "signature": part.get("signature"), "data": part.get("data")}
        return {"type": "thinking", **{name: value for name, value in found.items() if value}}
    raise ValueError(f"{where}: expected a part of type text, image or file, got {quote(kind)}")


def _check_all_carried(part: Mapping[str, Any], where: str) -> None:
    """Check that an image or a file says nothing that would be lost."""
    for name, value in part.items():
        if name not in _CARRIED and value and value != {"enabled": False}:
            raise ValueError(
                f"{where}.{brief(str(name), 32)}: expected an image or a file without it: it is not carried"
            )


def _read_image(part: Mapping[str, Any], where: str) -> Fields:
    told = part.get("image_url")
    if isinstance(told, Mapping):
        return {**_place(told.get("url"), f"{where}.image_url.url"), **_some(detail=told.get("detail"))}
    if told is not None:
        return {**_place(told, f"{where}.image_url"), **_some(detail=part.get("detail"))}
    return {**_source(part, where), **_some(detail=part.get("detail"))}


def _read_file(part: Mapping[str, Any], where: str) -> Fields:
    told = part["file"] if isinstance(part.get("file"), Mapping) else part
    name = told.get("filename", part.get("title", part.get("name")))
    if told.get("file_data") is not None:
        found = _place(told["file_data"], f"{where}.file_data", bare_is_data=True)
    elif told.get("file_url") is not None:
        found = _place(told["file_url"], f"{where}.file_url")
    else:
        source = told.get("source")
        if isinstance(source, Mapping) and source.get("type") == "text" and isinstance(source.get("data"), str):
            return {"type": "text", "text": f"{name}\n\n{source['data']}" if name else source["data"]}
        found = _source(told, where)
    return {"type": "file", **found, **_some(name=name)}


def _source(part: Mapping[str, Any], where: str) -> Fields:
    """Return where an image or a file is, as Anthropic says it or as we do."""
    source = part.get("source")
    told = source if isinstance(source, Mapping) else part
    place = f"{where}.source" if told is source else where
    if told.get("url") is not None:
        return {**_place(told["url"], f"{place}.url"), **_some(media_type=told.get("media_type"))}
    data = told.get("data")
    if isinstance(data, str) and data:
        return {"data": data, **_some(media_type=told.get("media_type"))}
    what = "the id of an uploaded file" if told.get("file_id", part.get("file_id")) else "neither"
    raise ValueError(f"{place}: expected an http(s) `url` or base64 `data`, got {what}")


def _place(url: object, where: str, *, bare_is_data: bool = False) -> Fields:
    """Return an address as it is, or what a data address holds."""
    if not isinstance(url, str):
        raise ValueError(f"{where}: expected an http(s) or data URL, got {type(url).__name__}")
    scheme, found, rest = url.partition(":")
    if found and scheme.lower() in ("http", "https"):
        if len(url) > bounds.MAX_URL_CHARS:
            raise ValueError(f"{where}: expected a URL of at most {bounds.MAX_URL_CHARS} characters, got {len(url):,}")
        return {"url": url}
    if found and scheme.lower() == "data":
        kind, comma, data = rest.partition(",")
        if not comma or not kind.endswith(";base64"):
            raise ValueError(f"{where}: expected a data URL in base64, got another one")
        return {"data": data, **_some(media_type=kind.removesuffix(";base64").partition(";")[0])}
    if bare_is_data:
        return {"data": url}
    raise ValueError(
        f"{where}: expected an http(s) or data URL, got one of {quote(brief(scheme, 32)) if found else 'no scheme'}"
    )


def _some(**fields: object) -> Fields:
    return {name: value for name, value in fields.items() if value}


def read_tool(tool: object, where: str) -> object:
    """Return the definition of a tool in our words.

    Raises:
        ValueError: When it is none of a function: a provider's own tools are not carried.
    """
    if not isinstance(tool, Mapping):
        return tool
    kind = tool.get("type")
    if kind not in (None, "function", "custom") or (kind == "custom" and "input_schema" not in tool):
        raise ValueError(f"{where}.type: expected a function, got {quote(kind)}")
    told = tool["function"] if isinstance(tool.get("function"), Mapping) else tool
    schema = told.get("parameters", told.get("input_schema"))
    mark = _some(cache=read_mark(told, where) or read_mark(tool, where))
    apart = ("type", "input_schema", "parameters", *_MARKS)
    rest = {**{name: value for name, value in told.items() if name not in apart}, **mark}
    given = {name: value for name, value in rest.items() if value is not None}
    return given if schema is None else {**given, "parameters": schema}


def read_tool_choice(choice: object) -> object:
    """Return a choice of tools in our words: `auto`, `none`, `required`, or a tool's name.

    Raises:
        ValueError: When it says more than these can.
    """
    if not isinstance(choice, Mapping):
        return "required" if choice == "any" else choice
    if choice.get("disable_parallel_tool_use"):
        raise ValueError("expected `parallel_tool_calls` = false, got `disable_parallel_tool_use` in it")
    kind = choice.get("type")
    function = choice["function"] if isinstance(choice.get("function"), Mapping) else choice
    if kind in ("function", "tool"):
        return function.get("name")
    if kind in ("auto", "none", "any", "required"):
        return "required" if kind == "any" else kind
    raise ValueError(f"expected auto, none, required or the name of a tool, got type {quote(kind)}")
