"""The table [vault] in fleet.toml: where keys lie that no variable and no file of their own holds (docs/keys.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fleet.config.sections import Section


class AnomalySettings(Section):
    """What is done about a key or bot that is asked for far more than usual (docs/keys.md)."""

    act: Literal["off", "alarm", "throttle", "suspend"] = Field(
        "alarm",
        description="How far it goes: only tells, holds a key to twice its usual, or lets a key or bot rest until "
        "it is resumed.",
    )
    most_rpm: float | None = Field(
        None, gt=0, description="Calls a minute of any key that are an alarm whatever is usual. Not set: none."
    )
    most_bot_rpm: float | None = Field(None, gt=0, description="The same of any bot. Not set: none.")
    throttle_after_s: float = Field(60.0, ge=0, description="Seconds of an alarm until a key is throttled.")
    suspend_after_s: float = Field(600.0, ge=0, description="Seconds of an alarm until a key or bot is suspended.")


class KeysSettings(Section):
    """How the use of keys is watched."""

    anomaly: AnomalySettings = AnomalySettings()


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
