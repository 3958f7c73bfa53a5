"""The table [vault] in fleet.toml: where keys lie that no variable and no file of their own holds (docs/keys.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fleet.config.sections import Section


class VaultSettings(Section):
    """Where keys lie: Fleet's own encrypted file, or HashiCorp Vault or OpenBao (docs/keys.md)."""

    key_file: Path | None = Field(
        None, description="Opens the encrypted file of keys. Not set: `.fleet-key` beside the state folder."
    )
    passphrase_file: Path | None = Field(
        None,
        description="Its passphrase, where it is sealed with one (`fleet keys passphrase`). Not set: you are asked.",
    )
    address: str | None = Field(None, description="Vault or OpenBao: https://HOST:8200. Not set: none.")
    mount: str = Field("secret", description="Where its KV store of version 2 is mounted.")
    namespace: str | None = Field(None, description="Its namespace, where it has any.")
    auth: Literal["token", "approle", "kubernetes"] = Field("token", description="How workers log in.")
    role: str | None = Field(None, description="The role id for `approle`, the role's name for `kubernetes`.")
    token_file: Path | None = Field(
        None, description="File of the token, the secret id, or the service account's token, by `auth`."
    )
    refresh_s: float = Field(300.0, ge=1, le=86_400, description="Seconds until a key is read from it again.")
    max_stale_s: float = Field(
        900.0,
        ge=0,
        le=86_400,
        description="Seconds for which a key that was read serves while it cannot be read again.",
    )
    delegation_keys: tuple[str, ...] = Field(
        (), description="Public keys that delegations begin with. Not set: in the state folder of this host."
    )
    seal_file: Path | None = Field(
        None,
        description="What workers seal with that follows a signed task. Not set: in the state folder of this host.",
    )

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        if self.auth != "token" and self.role is None:
            raise ValueError(f"expected a `role` for auth = {self.auth!r}, got none")
        if self.auth == "approle" and self.token_file is None:
            raise ValueError("expected the file of the secret id as `token_file` for auth = 'approle', got none")
        return self
