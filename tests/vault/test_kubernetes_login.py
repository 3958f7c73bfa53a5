"""The Kubernetes login of a real OpenBao server, which asks a cluster that is played here about service accounts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.config import VaultSettings
from fleet.errors import KeyMissing
from fleet.vault.kv import KvKey
from tests.http_server import Handler, serving
from tests.tls import make_certificates
from tests.vault.bao import Bao
from tests.vault.test_kv import ONE, TWO, bao, no_proxy

__all__ = ["bao", "no_proxy"]


def token_of(name: str, *, number: int = 1) -> str:
    """A projected token of a service account; the cluster is asked about it, and nobody looks at its signature."""
    place = {"namespace": "default", "serviceaccount": {"name": name, "uid": f"uid-{name}"}}
    claims = {
        "jti": str(number),
        "iss": "https://cluster.test",
        "sub": f"system:serviceaccount:default:{name}",
        "kubernetes.io": place,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"canary"))


class Cluster:
    """What it says of tokens, and which it was asked about."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The one endpoint of a Kubernetes API server that the login needs: TokenReview."""
    played = Cluster()

    class Reviews(Handler):
        def do_POST(self) -> None:
            review = json.loads(self.body())
            token = review["spec"]["token"]
            played.asked.append(token)
            name = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["sub"].rpartition(":")[2]
            groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
            user = {"username": f"system:serviceaccount:default:{name}", "uid": f"uid-{name}", "groups": groups}
            is_known = token in played.known
            status = {"authenticated": True, "user": user} if is_known else {"authenticated": False, "error": "no"}
            self.send(201, {**review, "status": status})

    with serving(Reviews) as played.url:
        yield played


def test_a_service_account_logs_in_and_again_with_the_token_file_as_it_is_then(
    bao: Bao, cluster: Cluster, tmp_path: Path
) -> None:
    bao.write("fleet/k8s", key=ONE)
    bao.client.sys.enable_auth_method("kubernetes")
    bao.client.sys.create_or_update_policy("k8s", 'path "secret/data/fleet/*" { capabilities = ["read"] }')
    login = bao.client.auth.kubernetes
    make_certificates(tmp_path)
    ca, reviewer = (tmp_path / "ca.pem").read_text(), token_of("reviewer")
    login.configure(cluster.url, kubernetes_ca_cert=ca, token_reviewer_jwt=reviewer, disable_local_ca_jwt=True)
    login.create_role("bots", ["bots"], ["default"], ttl="1h", policies=["k8s"])
    file, first, second = tmp_path / "token", token_of("bots"), token_of("bots", number=2)
    cluster.known = {first}
    file.write_text(first)
    settings = VaultSettings(address=bao.address, auth="kubernetes", role="bots", token_file=file)
    source = KvKey.of("fleet/k8s#key", settings)
    assert source.current().value == ONE and cluster.asked == [first]
    bao.write("fleet/k8s", key=TWO)
    assert source.current().value == TWO and cluster.asked == [first], "one login serves until its token ends"
    # The platform has written another token, and the vault's own has run out.
    cluster.known = {second}
    file.write_text(second)
    bao.client.auth.token.revoke(source._client.token)
    assert source.current().value == TWO and cluster.asked == [first, second]
    # One that the cluster no longer knows is refused, in words, and not for ever.
    cluster.known = set()
    bao.client.auth.token.revoke(source._client.token)
    with pytest.raises(KeyMissing, match="got a refusal") as raised:
        source.current()
    assert "canary" not in f"{raised.value} {raised.value.__cause__!r}" and first not in str(raised.value)
    cluster.known = {second}
    assert source.current().value == TWO
