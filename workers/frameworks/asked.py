"""What a request of an SDK asks of the pool's model: where it goes, what is reserved for it, what is sent. Pure.

The path below the API's root begins at the first name of an endpoint, wherever an SDK thinks that its API stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pydantic_core

from fleet.errors import BotFunctionFailed
from fleet.quoting import quote
from fleet.usage import Usage
from fleet.workers.frameworks.raw import RawRequest
from fleet.workers.limited.asks import BYTES_PER_TOKEN, ClientAsk, read_ask, read_object

#: A language of APIs, as their SDKs write it.
Wire = Literal["openai", "anthropic", "gemini"]

#: Methods that ask no model.
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
#: Endpoints that ask a model, and where the whole answer of each has what it says.
ASKING: Mapping[str, str] = {
    "chat/completions": "choices", "completions": "choices", "responses": "output", "messages": "content",
    "embeddings": "data",
}  # fmt: skip
#: Those of them whose answers are no text.
_SILENT = frozenset({"embeddings", "rerank", "moderations"})
#: First names of endpoints that ask a model whether or not a request names it: their servers have one by default.
_PAID = frozenset({
    "chat", "completions", "responses", "messages", "complete", "embeddings", "rerank", "moderations", "images",
    "audio",
})  # fmt: skip
#: The model of a request that names none.
UNNAMED = "(none)"
#: Parts of paths of requests that ask no model, whatever their bodies name.
_NO_MODEL = frozenset({
    "files", "uploads", "batches", "vector_stores", "conversations", "count_tokens", "input_tokens", "cancel",
    "tokenize",
})  # fmt: skip
#: First names of what stands below an API's root.
_FIRST = (
    "chat", "completions", "responses", "messages", "complete", "embeddings", "rerank", "moderations", "models",
    "files", "uploads", "batches", "vector_stores", "conversations", "images", "audio", "fine_tuning", "tokenize",
)  # fmt: skip
#: A path as SDKs write it, and a query: nothing in them is read otherwise by somebody behind us.
_PLAIN, _QUERY = re.compile(r"/[A-Za-z0-9/_.:~+,=@!$&'()*;-]*"), re.compile(r'[!"$-~]*')
_BELOW = re.compile(rf"/(?:{'|'.join(_FIRST)})(?=/|$)")
_VERSION = re.compile(r"^(?:/[a-z]+)?/v\d+(?:beta\d*)?(?=/)")
_GEMINI = re.compile(r":(?:streamGenerateContent|generateContent|countTokens|embedContent|batchEmbedContents)\b")
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_FORM_MODEL = re.compile(rb'(name="model"\r\n(?:[^\r\n]+\r\n)*\r\n)([^\r\n]*)(?=\r\n)')
#: A part of a prompt that is to be kept in the provider's cache for an hour.
_AN_HOUR = re.compile(rb'"ttl"\s*:\s*"1h"')


@dataclass(frozen=True, slots=True)
class RawAsk:
    """One request, read.

    Args:
        request: As it came.
        wire: Whose words it speaks.
        path: Below the API's root, with the query.
        endpoint: The path alone, without the first slash.
        body: Its JSON object; None: it has none.
        asked: What it asks of a model; None: it asks none.
        n: Answers wanted.
        limit: Most output tokens that it names; None: none.
        is_rewritten: Its body is no more the one that came.
    """

    request: RawRequest
    wire: Wire
    path: str
    endpoint: str
    body: dict[str, Any] | None
    asked: ClientAsk | None
    n: int = 1
    limit: int | None = None
    is_rewritten: bool = False

    @property
    def is_streamed(self) -> bool:
        """True when the answer is wanted in pieces."""
        return self.asked is not None and self.asked.is_streamed

    @property
    def tier(self) -> str | None:
        """The service tier that it names; None: the usual one."""
        told = (self.body or {}).get("service_tier")
        return told if isinstance(told, str) and told not in ("", "auto", "default") else None

    @property
    def offers(self) -> tuple[str, ...]:
        """The tools that it offers to the model, each by its name, or by its type where it has none."""
        told = (self.body or {}).get("tools")
        found = []
        for one in told if isinstance(told, list) else ():
            inner = one.get("function", one) if isinstance(one, dict) else {}
            named = (
                [*inner["functionDeclarations"]]
                if isinstance(inner, dict) and isinstance(inner.get("functionDeclarations"), list)
                else [inner]
            )
            found += [str(each.get("name") or each.get("type") or "?") for each in named if isinstance(each, dict)]
        return tuple(found)

    @property
    def tells_usage(self) -> bool:
        """True when a stream tells its usage without being asked, or was asked by the client."""
        if self.endpoint not in ("chat/completions", "completions"):
            return True
        options = (self.body or {}).get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def output_tokens(self, usual: int, bound: int | None) -> int:
        """Return the most output tokens that are reserved.

        Args:
            usual: Of an answer to a request that names no limit.
            bound: The most that the pool or the task allows; None: neither says.
        """
        if self.endpoint in _SILENT:
            return 0
        one = usual if self.limit is None else self.limit
        return self.n * (one if bound is None else min(one, bound))

    def most(self, output_tokens: int) -> Usage:
        """Return the most that it may use: all that is written to a cache, where that costs more."""
        given = 0 if self.asked is None else self.asked.input_tokens
        if self.endpoint in _SILENT:
            return Usage(input_tokens=given)
        for_1h = given if _AN_HOUR.search(self.request.body) else 0
        return Usage(
            input_tokens=given, cache_write_tokens=given, cache_write_1h_tokens=for_1h, output_tokens=output_tokens
        )

    def written(self, model: str, *, bound: int | None = None, with_usage: bool = False) -> RawRequest:
        """Return the request to send.

        Args:
            model: Of the pool: instead of the one that is named.
            bound: The most output tokens that the pool or the task allows.
            with_usage: A stream is asked for its usage as well.
        """
        if self.body is None:
            form = _FORM_MODEL.sub(lambda found: found[1] + model.encode(), self.request.body)
            return replace(self.request, path=self.path, body=form)
        changes: dict[str, Any] = {"model": model} if "model" in self.body or self.endpoint in ASKING else {}
        if bound is not None and self.limit is not None and self.limit > bound:
            changes |= {name: bound for name in _LIMITS if type(self.body.get(name)) is int}
        if with_usage:
            changes["stream_options"] = {**(self.body.get("stream_options") or {}), "include_usage": True}
        is_same = not self.is_rewritten and all(self.body.get(name) == value for name, value in changes.items())
        body = self.request.body if is_same else _json({**self.body, **changes})
        return replace(self.request, path=self.path, body=body)


def read(request: RawRequest) -> RawAsk:
    """Read a request.

    Raises:
        BotFunctionFailed: It leads out of the API, or asks a model in a body that cannot be read.
    """
    whole, _, query = request.path.partition("?")
    if ".." in whole or "//" in whole or not (_PLAIN.fullmatch(whole) and _QUERY.fullmatch(query)):
        raise BotFunctionFailed(f"expected a path of the pool's API, got {quote(whole)}: name its endpoint plainly")
    found = _BELOW.search(whole)
    path = whole[found.start() :] if found is not None else _VERSION.sub("", whole)
    endpoint = path.strip("/")
    body = read_object(request.body) if request.body else None
    ask = RawAsk(request, _wire(request, whole, endpoint), f"{path}?{query}" if query else path, endpoint, body, None)
    if request.method.upper() in _HARMLESS or not _NO_MODEL.isdisjoint(endpoint.split("/")):
        return ask
    if body is None and endpoint in ASKING:
        raise BotFunctionFailed(
            f"{endpoint}: expected a JSON object as it is, not packed, got {len(request.body)} bytes"
        )
    form = _FORM_MODEL.search(request.body) if body is None else None
    named = form[2].decode("utf-8", "replace") if form is not None else (body or {}).get("model")
    if not (isinstance(named, str) and named):
        named = UNNAMED if endpoint.split("/")[0] in _PAID else None
    is_form = request.headers.get("content-type", "").startswith("multipart/")
    asked = read_ask(request.body, named, 0 if is_form else len(request.body) // BYTES_PER_TOKEN)
    if asked is None:
        return ask
    limits = [limit for name in _LIMITS if type(limit := (body or {}).get(name)) is int and limit > 0]
    return replace(ask, asked=asked, limit=limits[0] if limits else None, n=_answers(endpoint, body or {}))


def _answers(endpoint: str, body: Mapping[str, Any]) -> int:
    """Return how many answers are made: `n` of each prompt, or the `best_of` so many."""
    counts = [count for name in ("n", "best_of") if type(count := body.get(name)) is int and count > 0]
    prompts = body.get("prompt") if endpoint == "completions" else None
    is_many = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
    return max(counts, default=1) * (len(prompts) if is_many and isinstance(prompts, list) else 1)


def asked_by(ask: RawAsk, body: dict[str, Any]) -> RawAsk:
    """Return the same with another body."""
    return ask if body is ask.body else replace(ask, body=body, is_rewritten=True)


def _wire(request: RawRequest, whole: str, endpoint: str) -> Wire:
    if _GEMINI.search(whole):
        return "gemini"
    is_theirs = endpoint.split("/")[0] in ("messages", "complete") or "anthropic-version" in request.headers
    return "anthropic" if is_theirs else "openai"


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return pydantic_core.to_json(body)
    except ValueError:  # half a surrogate pair: only as an escape
        return json.dumps(body, separators=(",", ":")).encode("ascii")
