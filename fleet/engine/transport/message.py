"""From the bytes of a message to what Celery gets: weighed before it is decoded, and refused when it is too heavy.

A message that is too heavy reaches Celery's consumer as its headers alone and a reason (`REFUSED`), so that its task
gets a failed result like that of any other malformed message.
"""

from __future__ import annotations

import sys
from typing import Any

from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from fleet import bounds
from fleet.engine.messages import weight
from fleet.engine.messages.envelope import TASK_NAME, from_plain_json
from fleet.errors import InvalidTask

JSON = "application/json"
#: Header of a message that was too heavy to be decoded: why.
REFUSED = "fleet_refused"


class LazyMessage(virtual.Message):
    """A message as Celery gets it."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **kwargs: Any) -> None:
        headers = payload.get("headers")
        if not isinstance(headers, dict) or not headers.get("compression"):
            super().__init__(payload, channel=channel, **kwargs)
            return
        plain = {name: value for name, value in headers.items() if name != "compression"}
        super().__init__({**payload, "headers": plain}, channel=channel, **kwargs)
        most = bounds.MAX_BODY_BYTES if _is_for_bots(plain) else weight.MAX_MESSAGE_BYTES
        compressed: Any = getattr(self, "body")  # noqa: B009 - kombu has no types
        try:
            self.body = weight.decompressed(compressed, headers["compression"], most)
        except InvalidTask:
            self.errors.append(sys.exc_info())

    def _decode(self) -> Any:
        if len(self.body or "") > weight.LIGHT_BYTES and _is_for_bots(self.headers):
            body = self.body if isinstance(self.body, bytes) else str(self.body or "").encode("utf-8", "replace")
            weight.check_weight(body)
        if self.content_type == JSON and (self.accept is None or JSON in self.accept):
            try:
                return from_plain_json(self.body)
            except (ValueError, TypeError):
                pass  # kombu decodes what is not plain, and has its own error if it isn't JSON
        return super()._decode()


def _is_for_bots(headers: dict[str, Any]) -> bool:
    return bool(headers.get("task", TASK_NAME) == TASK_NAME)


def decoded(raw: bytes) -> dict[str, Any]:
    """Return a task's message with its body still encoded; of one that is too heavy its headers and why.

    Raises:
        InvalidTask: When it is too heavy, and names no task that could be told.
        ValueError: When it isn't JSON.
    """
    size = weight.cut_size(raw) if raw.startswith(weight.CUT_MARK) else None
    if size is None and len(raw) <= weight.LIGHT_BYTES:  # it breaks no bound
        return plainly(raw)
    if size is not None:
        return _refused(*weight.headers_of_heavy(raw), _too_long(size))
    if weight.weight(raw) > weight.MAX_WEIGHT:
        return _refused(*weight.headers_of_heavy(raw), _TOO_HEAVY)
    message = plainly(raw)
    headers, properties, body = message.get("headers"), message["properties"], message.get("body")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        return message
    why = _why_not(len(raw), headers, properties, body)
    return message if why is None else _refused(headers, properties, why)


def plainly(raw: bytes) -> Any:
    """Decode JSON, whatever it weighs."""
    try:
        return from_plain_json(raw)
    except ValueError:
        return loads(bytes_to_str(raw))


_TOO_HEAVY = (
    f"expected at most {weight.MAX_HEADER_BYTES:,} bytes of headers and {bounds.MAX_BODY_BYTES:,} of a task, "
    "got a message that would take too long to be read"
)


def _too_long(size: int) -> str:
    return f"expected a message of at most {weight.MAX_MESSAGE_BYTES:,} bytes, got {size:,}"


def _why_not(size: int, headers: dict[str, Any], properties: dict[str, Any], body: Any) -> str | None:
    """Return why the body of a message is not to be decoded; None when it may be."""
    if size > weight.MAX_HEADER_BYTES:
        try:
            weight.check_headers(headers, properties)
        except InvalidTask as error:
            return str(error)
    most = bounds.MAX_BODY_BYTES if _is_for_bots(headers) else weight.MAX_MESSAGE_BYTES
    body_size = len(body) if isinstance(body, str) else 0
    if properties.get("body_encoding") == "base64":
        body_size = body_size * 3 // 4
    if body_size > most:
        return f"expected a task of at most {most:,} bytes, got {body_size:,}"
    return None


def _refused(headers: dict[str, Any], properties: dict[str, Any], why: str) -> dict[str, Any]:
    """Return a message that says no more than which task it was for, and why it was not read.

    Raises:
        InvalidTask: When it names no task.
    """
    task_id = headers.get("id", properties.get("correlation_id"))
    if not isinstance(task_id, str) or len(task_id) > bounds.MAX_ID_CHARS:
        raise InvalidTask(why)
    task = headers.get("task")
    kept = {"id": task_id, "task": task if isinstance(task, str) and len(task) < 256 else TASK_NAME, REFUSED: why}
    delivery = {"exchange": "", "routing_key": ""}
    return {
        "body": "",
        "content-type": JSON,
        "content-encoding": "utf-8",
        "headers": kept,
        "properties": {"correlation_id": task_id, "delivery_info": delivery},
    }
