"""The table [providers.NAME.exchange] in fleet.toml: a token that soon expires in place of a key (docs/keys.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from fleet.config.hosts import is_loopback
from fleet.config.sections import Section
from fleet.quoting import quote


@dataclass(frozen=True, slots=True)
class Taken:
    """What a grant needs of the table, and what it may have beside that."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


#: What each grant takes.
GRANTS: Mapping[str, Taken] = {
    "anthropic": Taken(
        ("token_file", "federation_rule_id", "organization_id", "service_account_id"), ("workspace_id", "url")
    ),
    "openai": Taken(("token_file", "identity_provider_id", "service_account_id"), ("subject_token_type", "url")),
    "openai-x509": Taken(
        ("certificate_file", "certificate_key_file", "identity_provider_id", "service_account_id"), ("url",)
    ),
    "google": Taken(("token_file", "audience"), ("subject_token_type", "scope", "impersonate", "url")),
    "jwt-bearer": Taken(("token_file", "url"), ("scope", "client_id")),
    "token-exchange": Taken(
        ("token_file", "url"), ("audience", "scope", "client_id", "subject_token_type")
    ),
}  # fmt: skip


class ExchangeSettings(Section):
    """A short-lived token in place of a key: what this workload shows of itself, and to whom (docs/keys.md)."""

    grant: Literal["anthropic", "openai", "openai-x509", "google", "jwt-bearer", "token-exchange"] = Field(
        description="Whose exchange it is; or the grant of RFC 7523 or RFC 8693, at a `url` of your own."
    )
    token_file: Path | None = Field(None, description="File of the identity token (a JWT), read again each time.")
    url: str | None = Field(None, description="Token endpoint. Not set: the vendor's.")
    federation_rule_id: str | None = Field(None, description="Anthropic: the rule, `fdrl_...`.")
    organization_id: str | None = Field(None, description="Anthropic: the organization's UUID.")
    service_account_id: str | None = Field(None, description="Anthropic and OpenAI: the service account to act as.")
    workspace_id: str | None = Field(
        None, description="Anthropic: `wrkspc_...` or `default`, where the rule is enabled for several workspaces."
    )
    identity_provider_id: str | None = Field(None, description="OpenAI: the workload identity provider.")
    audience: str | None = Field(
        None, description="Google: `//iam.googleapis.com/projects/.../providers/NAME`; RFC 8693: who the token is for."
    )
    scope: str | None = Field(None, description="What the token may do. Not set: Google's `cloud-platform`, else none.")
    impersonate: str | None = Field(None, description="Google: e-mail of the service account to act as.")
    client_id: str | None = Field(None, description="Of this client, where a `url` of your own asks for it.")
    subject_token_type: str | None = Field(None, description="RFC 8693's name for what the file holds. Not set: a JWT.")
    certificate_file: Path | None = Field(None, description="Client certificate with its chain (PEM), for X.509.")
    certificate_key_file: Path | None = Field(None, description="Its private key (PEM), which only its owner can read.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        taken = GRANTS[self.grant]
        if missing := [name for name in taken.needed if not getattr(self, name)]:
            raise ValueError(
                f"grant {self.grant!r}: expected {' and '.join(f'`{name}`' for name in missing)}, got none"
            )
        known = {"grant", *taken.needed, *taken.optional}
        if odd := [name for name in type(self).model_fields if name not in known and getattr(self, name) is not None]:
            raise ValueError(
                f"grant {self.grant!r}: expected {', '.join((*taken.needed, *taken.optional))}, "
                f"got {' and '.join(f'`{name}`' for name in odd)}, which it does not use"
            )
        return self

    @model_validator(mode="after")
    def _url_keeps_secrets(self) -> Self:
        if self.url is None:
            return self
        parts = urlsplit(self.url)
        if not parts.hostname or parts.username or parts.fragment or parts.scheme not in ("http", "https"):
            raise ValueError(
                f"url: expected https://HOST/PATH without a user, got {quote(parts.hostname or 'no host')}"
            )
        if parts.scheme == "http" and not is_loopback(self.url):
            raise ValueError(f"url: expected https://, got http:// for {quote(parts.hostname)}: identities would show")
        return self

    @property
    def certificate(self) -> tuple[Path, Path] | None:
        """The client certificate and its key; None: none is shown."""
        if self.certificate_file is None or self.certificate_key_file is None:
            return None
        return self.certificate_file, self.certificate_key_file
