"""What answers of a node of an EVM network prove: a final block is its own word, and an error is nobody's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from fleet.config.payouts.tables import NetworkSettings
from fleet.payouts.nodes import EvmNode
from fleet.payouts.preparing import chain_id_of, payer_of
from fleet.payouts.refusals import NodeAway
from tests.payouts.fake_evm import TOKEN
from tests.payouts.faulty import door_to
from tests.payouts.purse import PAYER


class Answers:
    """A node that answers each method with what it is told to: a result, or an error."""

    def __init__(self) -> None:
        self.by_method: dict[str, dict[str, Any]] = {}

    def execute(self, path: str, body: Any) -> Any:
        asked = body if isinstance(body, list) else [body]
        told = [{"id": one["id"], **self.by_method.get(one["method"], {"result": "0x1"})} for one in asked]
        return told if isinstance(body, list) else told[0]


@pytest.fixture
def node() -> Iterator[tuple[Answers, EvmNode]]:
    answers = Answers()
    with door_to(answers.execute) as door:
        yield answers, EvmNode(door.url)


@pytest.mark.parametrize(
    "error",
    [
        {"code": -32602, "message": "invalid argument 0"},
        {"code": -32000, "message": "Unsupported block tag"},
        {"message": "invalid block tag finalized"},
    ],
)
def test_a_node_that_knows_no_final_blocks_is_gone_by_confirmations(
    node: tuple[Answers, EvmNode], error: dict[str, Any]
) -> None:
    answers, evm_node = node
    answers.by_method = {"eth_getBlockByNumber": {"error": error}, "eth_blockNumber": {"result": "0x20"}}
    assert evm_node.final_block(15) == 0x20 - 15


@pytest.mark.parametrize(
    ("final", "latest"),
    [
        ({"error": {"code": -32005, "message": "limit exceeded"}}, {"result": "0x20"}),
        ({"result": None}, {"result": "0x20"}),
        ({"result": {}}, {"result": "0x20"}),
        ({"error": {"code": -32602, "message": "?"}}, {"error": {"code": -32005, "message": "limit exceeded"}}),
        ({"error": {"code": -32602, "message": "?"}}, {"result": None}),
    ],
)
def test_an_error_that_may_pass_makes_no_block_final(
    node: tuple[Answers, EvmNode], final: dict[str, Any], latest: dict[str, Any]
) -> None:
    answers, evm_node = node
    answers.by_method = {"eth_getBlockByNumber": final, "eth_blockNumber": latest}
    with pytest.raises(NodeAway):
        evm_node.final_block(15)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "9" * 5000, "", '{"id": 1, "result": NaN'])
def test_bytes_that_are_no_json_are_no_answer(text: str) -> None:
    with odd_server(text) as url, pytest.raises(NodeAway, match="expected an answer of the node at 127"):
        EvmNode(url).ask("eth_chainId")


@contextmanager
def odd_server(text: str) -> Iterator[str]:
    """Serve the same bytes to whoever asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_preparing_takes_odd_answers_for_none() -> None:
    answers = Answers()
    with door_to(answers.execute) as door:
        network = NetworkSettings(url=door.url, chain_id=97, token=TOKEN, payer=PAYER["evm"], native_price="1")
        answers.by_method = {"eth_chainId": {"result": "0x61"}, "eth_call": {"result": "0x12"},
                             "eth_getBlockByNumber": {"result": {"number": "0x5"}},
                             "eth_getTransactionCount": {"result": None}}  # fmt: skip
        assert chain_id_of("test", network) == 97
        with pytest.raises(NodeAway, match="cannot be read: TypeError"):
            payer_of("test", network, "id", 0.0)
