"""Nodes of networks over HTTP: what they are asked, and what no answer means. Nothing is ever sent twice by itself."""

from __future__ import annotations

import itertools
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fleet.config.payouts.tables import NetworkSettings
from fleet.payouts import evm, tron
from fleet.payouts.refusals import CallReverted, NodeAway, PayoutRefused
from fleet.quoting import quote

#: Seconds that a node may take for an answer.
TIMEOUT_S = 20.0
#: Bytes of an answer at most.
MOST_BYTES = 32 * 2**20
#: Calls in one request at most: nodes take so many.
MOST_CALLS = 50
#: What nodes say that do not know the tag `finalized` at all; anything else may pass, and proves nothing.
_KNOWS_NO_TAG = re.compile(r"\(-32602\)|unsupported|not supported|(invalid|unknown) block tag", re.IGNORECASE)


@contextmanager
def as_answered() -> Iterator[None]:
    """Take an answer without what it should have for no answer: what is missing there proves nothing.

    Raises:
        NodeAway: Naming what is missing.
    """
    try:
        yield
    except (LookupError, TypeError, ArithmeticError, ValueError, AttributeError) as error:
        raise NodeAway(
            f"expected a whole answer of the node, got one that cannot be read: {type(error).__name__}: "
            f"{quote(str(error))}"
        ) from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A node that sends us elsewhere is none of ours."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def post(url: str, body: object, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Send JSON to a node and return its answer.

    Raises:
        NodeAway: Without an answer in JSON. What was asked may have been done.
    """
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "fleet"}
    )
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return json.loads(answer.read(MOST_BYTES))
    except (
        OSError,
        ValueError,
        RecursionError,
        urllib.error.HTTPError,
    ) as error:  # also a cut connection: http.client's are OSErrors
        raise NodeAway(
            f"expected an answer of the node at {_place(url)}, got {type(error).__name__}: {quote(str(error))}"
        ) from None
    except Exception as error:
        if type(error).__module__ == "http.client":
            raise NodeAway(f"expected an answer of the node at {_place(url)}, got {type(error).__name__}") from None
        raise


def _place(url: str) -> str:
    """Return host and port of a node, as messages say them: a user and password in its address are secrets."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def url_of(name: str, network: NetworkSettings) -> str:
    """Return where a network's node is.

    Raises:
        PayoutRefused: When that is not set.
    """
    if network.url is None:
        raise PayoutRefused(f"expected networks.{name}.url, a node's address, got none")
    url = network.url.get_secret_value().rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise PayoutRefused(
            f"expected networks.{name}.url with http:// or https:// before the host, got something else"
        )
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise PayoutRefused(f"expected networks.{name}.url without a user and password, got one with them")
    return url


class EvmNode:
    """A node of an EVM network, by JSON-RPC.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._ids = itertools.count(1)

    def ask(self, method: str, *params: object) -> Any:
        """Call one method.

        Raises:
            NodeAway: Without an answer.
            PayoutRefused: When the node refuses it.
        """
        ((result, error),) = self.ask_together((method, list(params)))
        if error is not None:
            raise PayoutRefused(f"expected the node to do {method}, got {quote(error)}")
        return result

    def ask_together(self, *calls: tuple[str, Sequence[object]]) -> list[tuple[Any, str | None]]:
        """Call several methods, `MOST_CALLS` in a request, which one node answers; return results and errors."""
        if len(calls) > MOST_CALLS:
            return [*self.ask_together(*calls[:MOST_CALLS]), *self.ask_together(*calls[MOST_CALLS:])]
        body = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in calls
        ]
        found = post(self._url, body if len(body) > 1 else body[0], timeout_s=self._timeout_s)
        answers = {
            one.get("id"): one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)
        }
        results = []
        for one in body:
            answer = answers.get(one["id"])
            if answer is None:
                raise NodeAway(f"expected an answer to {one['method']}, got one to something else")
            error = answer.get("error")
            results.append((answer.get("result"), None if error is None else _told(error)))
        return results

    def number(self, method: str, *params: object) -> int:
        """Call a method that answers a whole number."""
        found = self.ask(method, *params)
        try:
            return int(found, 16)
        except (TypeError, ValueError):
            raise NodeAway(f"expected a number from {method}, got {quote(found)}") from None

    def view(self, contract: str, call: str, *arguments: int | str) -> int:
        """Return what a contract says to a question with a whole number as its answer."""
        data = f"0x{call}{''.join(evm.word(one) for one in arguments)}"
        return self.number("eth_call", {"to": contract, "data": data}, "latest")

    def final_block(self, confirmations: int) -> int:
        """Return the number of the last block that nothing can undo: the node's own word.

        Only a node that does not know of final blocks at all is gone by confirmations.

        Raises:
            NodeAway: It gives no such block right now.
        """
        (final, error), (latest, wrong) = self.ask_together(
            ("eth_getBlockByNumber", ["finalized", False]), ("eth_blockNumber", [])
        )
        with as_answered():
            if error is None and isinstance(final, Mapping):
                return int(final["number"], 16)
            if error is None or not _KNOWS_NO_TAG.search(error) or wrong is not None:
                raise NodeAway(f"expected the last final block from the node, got {quote(error or wrong or 'none')}")
            return int(latest, 16) - confirmations


class TronNode:
    """A full node of TRON, by its HTTP API.

    Args:
        url: Where it is, without a path.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url, self._timeout_s = url, timeout_s

    def ask(self, path: str, **body: object) -> dict[str, Any]:
        """Call one method: `wallet/...` for what is known now, `walletsolidity/...` for what nothing can undo.

        Raises:
            NodeAway: Without an answer: also when a busy node says so, with status 200 and `Error`.
        """
        found = post(f"{self._url}/{path}", body, timeout_s=self._timeout_s)
        if not isinstance(found, dict) or "Error" in found:
            raise NodeAway(f"expected an object from {path}, got {quote(str(found))}")
        return found

    def view(self, owner: str, contract: str, call: str, parameter: str) -> tuple[int, int]:
        """Return what a contract says, and the energy that the call takes.

        Raises:
            CallReverted: When the contract would revert it.
            PayoutRefused: When the call would fail otherwise.
        """
        found = self.ask(
            "wallet/triggerconstantcontract", owner_address=tron.address_bytes(owner).hex(),
            contract_address=tron.address_bytes(contract).hex(), function_selector=call, parameter=parameter,
        )  # fmt: skip
        results = found.get("constant_result") or []
        told = found.get("result", {})
        # a revert comes with `result: true`, a message, and what the contract said in place of what it returns
        ended = f"{_message(told)} {found.get('transaction', {}).get('ret', '')}"
        wrong = f"expected contract {contract} to do {call}, got {quote(_message(told))}"
        if "REVERT" in ended or (told.get("result") and "FAILED" in ended):
            raise CallReverted(wrong)
        if not told.get("result") or not results or "message" in told:
            raise PayoutRefused(wrong)
        return int(results[0] or "0", 16), int(found.get("energy_used", 0)) + int(found.get("energy_penalty", 0))

    def parameters(self) -> dict[str, int]:
        """Return what the network charges: its parameters by name."""
        rows = self.ask("wallet/getchainparameters").get("chainParameter", [])
        return {row["key"]: int(row.get("value", 0)) for row in rows}


def _told(error: Any) -> str:
    """Return what a node says in an error of JSON-RPC, with its code."""
    if not isinstance(error, Mapping):
        return str(error)
    code = f" ({error['code']})" if "code" in error else ""
    return f"{error.get('message', error)}{code}"


def _message(told: Mapping[str, Any]) -> str:
    text = str(told.get("message", told))
    try:
        return bytes.fromhex(text).decode("utf-8", "replace")
    except ValueError:
        return text
