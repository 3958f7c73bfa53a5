"""A key in HashiCorp Vault or OpenBao: one field of a secret in a KV store of version 2, through `hvac`.

Logs in when it has to: with the first read, and once more when its token is refused. The extra is `vault`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

from fleet.config import VaultSettings
from fleet.config.hosts import host_of
from fleet.config.secret_files import one_word, read_secret
from fleet.errors import ConfigurationError, KeyMissing, VaultAway
from fleet.quoting import Hidden
from fleet.vault.sources import Secret

#: Seconds for one request: a worker that starts waits for it.
TIMEOUT_S = 5.0
#: Where tokens lie that no setting names: variables of both products, then the file of their commands.
TOKEN_VARIABLES, TOKEN_FILE = ("VAULT_TOKEN", "BAO_TOKEN"), Path("~/.vault-token")
#: Where Kubernetes mounts the token of a pod's service account.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
#: What is added to the name of a field for the key that is to serve later, and for when (Unix time, s).
NEXT, NEXT_AT = ".next", ".next_at"
#: Variables that hold the address, as both products' commands read them.
ADDRESS_VARIABLES = ("VAULT_ADDR", "BAO_ADDR")

T = TypeVar("T")


class KvKey:
    """The source of one key.

    Args:
        path: Of the secret below the mount.
        name: Of its field.
        settings: The table [vault].
        clock: Unix time in seconds.
    """

    def __init__(
        self, path: str, name: str, settings: VaultSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._name, self._settings = path, name, settings
        self._clock = clock
        self._client: Any = None
        #: What was given last, and what of it is refused: the next one serves then.
        self._given: str | None = None
        self._refused: str | None = None
        self._one_at_a_time = threading.Lock()

    @classmethod
    def of(cls, spelt: str, settings: VaultSettings) -> KvKey:
        """Return the source that `api_key_vault` spells, `PATH#FIELD`."""
        path, _, name = spelt.partition("#")
        return cls(path, name, settings)

    @property
    def where(self) -> str:
        """Mount, path and field."""
        return f"vault {self._settings.mount}/{self._path}#{self._name}"

    def current(self) -> Secret:
        """Return the newest version that is not deleted. Raises as `KeySource.current`."""
        told = self._asked(self._read)["data"]
        fields, made = told.pop("data", None) or {}, told["metadata"]
        following, at_s = self._following(fields)
        serves = fields.get(self._name)
        if following is not None and (at_s <= self._clock() or self._refused == serves):
            serves, at_s = following, math.inf
        self._given = value = Hidden(serves) if isinstance(serves, str) else serves
        if not isinstance(value, str):
            raise KeyMissing(f"expected a text in {self.where}, got {'nothing' if value is None else 'something else'}")
        next_at = None if following is None or at_s == math.inf else at_s
        since = _time(made.get("created_time")) if next_at is None else None  # of that one only the vault's log knows
        return Secret(one_word(value, self.where), str(made["version"]), since, next_at=next_at)

    def refuse(self) -> bool:
        """As `HoldsNext.refuse`."""
        is_news = self._given is not None and self._refused != self._given
        self._refused = self._given
        return is_news

    def _following(self, fields: Mapping[str, Any]) -> tuple[str | None, float]:
        """Return the key that is to serve later, and from when (Unix time, s)."""
        following, at = fields.get(f"{self._name}{NEXT}"), fields.get(f"{self._name}{NEXT_AT}")
        try:
            at_s = float(at)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None, math.inf
        return (Hidden(following), at_s) if isinstance(following, str) and math.isfinite(at_s) else (None, math.inf)

    def mark(self) -> Hashable:
        """Only reading it tells."""
        return None

    def put(self, value: str, starts_at: float | None = None) -> str:
        """Write a new version of the secret, its other fields as they are; return its number.

        Args:
            value: The key.
            starts_at: Unix time in seconds from when it serves: until then it lies beside the one that does; None: at
                once.

        Raises:
            ConfigurationError: It was changed meanwhile: try again.
            KeyMissing: As `KeySource.current`; also when writing is not allowed.
        """
        return str(self._asked(lambda client: self._write(client, value, starts_at)))

    def _read(self, client: Any) -> Any:
        return client.secrets.kv.v2.read_secret_version(
            path=self._path, mount_point=self._settings.mount, raise_on_deleted_version=True
        )

    def _write(self, client: Any, value: str, starts_at: float | None) -> int:
        import hvac

        try:
            before = self._read(client)["data"]
            fields, version = before["data"] or {}, before["metadata"]["version"]
        except hvac.exceptions.InvalidPath as error:
            fields, version = {}, _deleted_version(error)
        following, at_s = self._following(fields)
        if following is not None and at_s <= self._clock():
            fields = {**fields, self._name: following}
        later = f"{self._name}{NEXT}", f"{self._name}{NEXT_AT}"
        fields = {name: text for name, text in fields.items() if name not in later}
        if starts_at is None:
            fields[self._name] = value
        else:
            fields |= dict(zip(later, (value, repr(starts_at)), strict=True))
        try:
            written = client.secrets.kv.v2.create_or_update_secret(
                path=self._path, secret=fields, cas=version, mount_point=self._settings.mount
            )
        except hvac.exceptions.InvalidRequest as error:
            raise ConfigurationError(f"expected nobody else to write {self.where}, somebody did: try again") from error
        return int(written["data"]["version"])

    def _asked(self, ask: Callable[[Any], T]) -> T:
        """Return what a client gives, logged in anew when its token has run out."""
        import requests

        hvac = _hvac()
        with self._one_at_a_time:
            try:
                try:
                    return ask(self._client or self._logged_in(hvac))
                except hvac.exceptions.Forbidden:
                    return ask(self._logged_in(hvac))
            except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized) as error:
                raise KeyMissing(
                    f"expected leave to use {self.where}, got a refusal: look at the policy of its login"
                ) from _plain(error)
            except hvac.exceptions.InvalidPath as error:
                raise KeyMissing(f"expected a secret at {self.where}, got none: write it there") from _plain(error)
            except (hvac.exceptions.InvalidRequest, hvac.exceptions.ParamValidationError) as error:
                raise KeyMissing(
                    f"expected {self._settings.auth} to log in for {self.where}, got a refusal: look at [vault]"
                ) from _plain(error)
            except (hvac.exceptions.VaultError, requests.RequestException) as error:
                raise VaultAway(
                    f"expected an answer for {self.where}, got {type(error).__name__}: see that the vault runs, "
                    "is unsealed and can be reached"
                ) from _plain(error)

    def _logged_in(self, hvac: Any) -> Any:
        chosen = self._settings
        address = chosen.address or next(filter(None, map(os.environ.get, ADDRESS_VARIABLES)), None)
        if address is None:
            raise KeyMissing("vault.address: expected where Vault or OpenBao listens, got nothing: set it in [vault]")
        client = hvac.Client(
            url=address, token="", namespace=chosen.namespace, timeout=TIMEOUT_S, allow_redirects=False
        )
        client.session.hooks["response"].append(_stay)
        if chosen.auth == "approle":
            assert chosen.token_file is not None
            secret_id = read_secret(chosen.token_file, setting="vault.token_file")
            client.auth.approle.login(role_id=chosen.role, secret_id=secret_id)
        elif chosen.auth == "kubernetes":
            token = read_secret(chosen.token_file or SERVICE_ACCOUNT, setting="vault.token_file", is_private=False)
            client.auth.kubernetes.login(role=chosen.role, jwt=token)
        else:
            client.token = _token(chosen.token_file)
        self._client = client
        return client


def _token(file: Path | None) -> str:
    if file is None:
        for name in TOKEN_VARIABLES:
            if os.environ.get(name):
                return one_word(os.environ[name], f"variable {name}")
    return read_secret(file or TOKEN_FILE, setting="vault.token_file")


def _hvac() -> Any:
    try:
        import hvac
    except ImportError as error:
        raise KeyMissing("api_key_vault: expected hvac, got none: pip install 'celery-fleet[vault]'") from error
    return hvac


def _stay(answer: Any, *_: Any, **__: Any) -> None:
    """Refuse to go elsewhere: a token, or what logs in, would go along, in a header that no library takes out."""
    if answer.is_redirect:
        answer.close()
        where = host_of(urljoin(answer.url, answer.headers["location"]))
        raise VaultAway(
            f"expected an answer of {host_of(answer.url)}, got a redirect to {where}: if that is a vault of yours, set "
            "vault.address to it; a standby that forwards requests needs none"
        )


def _plain(error: Exception) -> Exception:
    """Return an error without what it carries: hvac's keep the whole answer, requests' the whole request."""
    return RuntimeError(type(error).__name__).with_traceback(None)


def _deleted_version(error: Any) -> int:
    """Return the number of the newest version where that is deleted; 0 where there never was one."""
    try:
        return int(error.json["data"]["metadata"]["version"])
    except (KeyError, TypeError, ValueError):
        return 0


def _time(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)[:19] + "+00:00").timestamp()
    except ValueError:
        return None
