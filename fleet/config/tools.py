"""The tables of [tools] in fleet.toml: APIs that bot functions use as tools, under limits of their own (docs/tools.md).

Their limits are named as those of models are, `tools/NAME/KEY`; so no provider may be called `tools`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from fleet.config.hosts import host_of
from fleet.config.providers import SECRET_NAME, check_one_source, key_settings_of
from fleet.config.scopes import ScopeSettings, serves
from fleet.config.sections import LimitSettings, Section
from fleet.quoting import quote

#: What stands for the provider in the name of a tool's limit.
TOOLS = "tools"
#: Names of tools.
_NAME = r"[A-Za-z0-9_-]{1,64}"
#: Names of headers (RFC 9110: a token) and of query parameters that a key may be sent in.
_HEADER, _PARAMETER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", r"[A-Za-z0-9._~-]{1,100}"
#: Headers that Fleet, or the client, writes itself.
_NOT_FOR_KEYS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


class ToolSettings(Section):
    """An API that your bot functions use as a tool, by `bot.tool_client("NAME")` (docs/tools.md)."""

    base_url: str = Field(description="Root of the API.")
    api_key_env: str | None = Field(None, description="Environment variable that holds the key. Not set: none is sent.")
    api_key_file: Path | None = Field(None, description="File that holds the key; must be readable by its owner only.")
    api_key_secret: str | None = Field(
        None, pattern=SECRET_NAME, description="Name of a secret that systemd, Docker or Kubernetes mounts."
    )
    api_key_vault: str | None = Field(None, description="`PATH#FIELD` of the key in the KV store of [vault].")
    rotate_days: float | None = Field(
        None, gt=0, description="Days after which a key is due to be replaced: `fleet keys` and `fleet doctor` say so."
    )
    key_scheme: str = Field("Bearer", description="Word before the key in the header `Authorization`.")
    key_header: str | None = Field(None, description="Header that the key is sent in, instead of `Authorization`.")
    key_query: str | None = Field(None, description="Query parameter that the key is sent in, instead of a header.")
    timeout_s: float = Field(30.0, gt=0, le=3600, description="Seconds until Fleet gives up one request.")
    max_answer_mb: float = Field(16.0, gt=0, le=1024, description="MiB of an answer at most, unpacked.")
    retry_unsafe: bool = Field(
        False,
        description="Repeat also POST and PATCH when nobody knows whether the first try took effect. False: only if "
        "your function sends an Idempotency-Key.",
    )
    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    in_flight: int | None = Field(None, ge=1, description="Requests at the same time.")
    requests_per_day: int | None = Field(None, ge=1, description="Requests per day (UTC).")
    usd_per_call: float = Field(0.0, ge=0, le=10_000, description="US dollars that one request costs; 0: none.")
    usd_per_day: float | None = Field(None, gt=0, description="US dollars per day (UTC); needs `usd_per_call`.")
    when_full: Literal["wait", "stop bulk"] = Field(
        "wait", description="What a used-up day does: all wait, or low and bulk tasks wait from 80% on."
    )
    burst: float = Field(0.02, gt=0, le=1, description="Share of a minute that may go at once; below the API's own.")
    counting: Literal["bucket", "window"] = Field(
        "window", description="How the API counts: a refilled bucket, or a sliding or fixed minute (safe for both)."
    )
    window_s: float = Field(60.0, gt=0, le=86_400, description="Seconds over which an API with a window counts.")
    scope: ScopeSettings | None = Field(
        None,
        description="Whom its key serves, and how many requests and dollars a day (docs/keys.md).",
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        wanted, url = "expected http(s)://HOST[:PORT][/PATH]", text.strip().rstrip("/")
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one or re.search(r"[\s\\\x00-\x1f]", url):
            raise ValueError(f"{wanted}, got {quote(text)}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"{wanted}, got one with a user, query or fragment: keys belong in `api_key_env`")
        return url

    @model_validator(mode="after")
    def _key_is_sent_in_one_way(self) -> Self:
        check_one_source(self.key_settings, self.api_key_vault)
        if self.key_header is not None and self.key_query is not None:
            raise ValueError("expected `key_header` or `key_query`, got both")
        if (self.key_header or self.key_query) and not self.has_key:
            raise ValueError(
                "expected `api_key_env` or `api_key_file` (or the like) with `key_header` or `key_query`, got none"
            )
        if not re.fullmatch(_HEADER, self.key_scheme):
            raise ValueError(f"key_scheme: expected one word, such as Token, got {quote(self.key_scheme)}")
        header = self.key_header
        if header is not None and (not re.fullmatch(_HEADER, header) or header.lower() in _NOT_FOR_KEYS):
            raise ValueError(f"key_header: expected a header's name, such as X-Api-Key, got {quote(header)}")
        if self.key_query is not None and not re.fullmatch(_PARAMETER, self.key_query):
            raise ValueError(f"key_query: expected a parameter's name, such as api_key, got {quote(self.key_query)}")
        if self.usd_per_day is not None and not self.usd_per_call:
            raise ValueError("usd_per_day: expected `usd_per_call` with it, got none: nothing would be counted")
        return self

    @model_validator(mode="after")
    def _scope_can_be_kept(self) -> Self:
        scope = self.scope
        if scope is None:
            return self
        odd = [name for name in ("models", "tools", "tokens_per_day") if getattr(scope, name) is not None]
        if odd:
            raise ValueError(f"scope.{odd[0]}: expected none, for requests to a tool ask no model and use no tokens")
        if not serves(scope.hosts, host := host_of(self.base_url)):
            raise ValueError(f"scope.hosts: expected {quote(host)} among them, which its `base_url` names")
        if scope.usd_per_day is not None and not self.usd_per_call:
            raise ValueError("scope.usd_per_day: expected `usd_per_call` with it, got none: nothing would be counted")
        return self

    @property
    def has_key(self) -> bool:
        """True when a key is sent."""
        return bool(self.key_settings)

    @property
    def key_settings(self) -> tuple[str, ...]:
        """The settings here that say where the key comes from."""
        return key_settings_of(self)

    @property
    def limit(self) -> LimitSettings:
        """Its limits, as those of a model."""
        return LimitSettings(
            rpm=self.rpm, in_flight=self.in_flight, requests_per_day=self.requests_per_day,
            usd_per_day=self.usd_per_day, when_full=self.when_full, burst=self.burst, counting=self.counting,
            window_s=self.window_s,
        )  # fmt: skip


def tool_of(api: str) -> str:
    """Return the name of the tool that `tools/NAME` or `tools/NAME/KEY` is about; empty: it is about a model."""
    provider, _, rest = api.partition("/")
    return rest.partition("/")[0] if provider == TOOLS else ""


def models_among(apis: Collection[str]) -> tuple[str, ...]:
    """Return those of `provider/model` names that are models and no tools."""
    return tuple(api for api in apis if not tool_of(api))


def check_tools(tools: Collection[str], providers: Collection[str], *tables: Mapping[str, object]) -> None:
    """Refuse names that could not be told apart.

    Args:
        tools: Names under [tools].
        providers: Names under [providers].
        tables: [limits] and [prices]: a tool's stand in its own table.

    Raises:
        ValueError: Naming the table.
    """
    for name in tools:
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"tools: expected a name of letters, digits, - and _, got {quote(name)}")
    if TOOLS in providers:
        raise ValueError(
            f"providers.{TOOLS}: expected another name, got the one under which the limits of [tools.NAME] are kept"
        )
    for found in (name for table in tables for name in table if tool_of(name)):
        raise ValueError(
            f"{quote(found)}: expected rates and prices of a tool in [tools.{tool_of(found)}], got a table of its own"
        )
