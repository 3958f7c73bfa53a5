"""What came instead of an answer, as an error of `fleet.errors`: by what went over the wire, not by an SDK's classes.

Each SDK has a tree of errors of its own, and pydantic-ai one more. What they agree on is in the exchange: no answer, an
answer with a status, or one that is not what the wire says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, cast

from pydantic_ai.exceptions import UserError

from fleet.errors import BadRequest, FleetError, KeyRejected, MachineExhausted, ProviderUnavailable, RateLimited
from fleet.usage import Usage
from fleet.workers.calls import Call
from fleet.workers.providers.base import lack_of
from fleet.workers.providers.bodies import carries_error, read_events
from fleet.workers.providers.models.exchange import Exchange, Forbidden
from fleet.workers.providers.problem import Problem, read_problem, texts_of
from fleet.workers.providers.usage import read_usage
from fleet.workers.providers.verdict import error_of, meant_status, of_tier
from fleet.workers.providers.wire_schema import SchemaRefused, refusal_of_schema

#: Errors of HTTP clients that say that no connection came about, by name: of httpx, httpx2 and botocore, none of which
#: need be loaded.
_NOT_CONNECTED = frozenset({
    "ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError", "gaierror",
    "ConnectionRefusedError", "EndpointConnectionError", "ConnectTimeoutError",
})  # fmt: skip
#: Errors that say that the environment holds no key that an SDK would take.
_NO_KEY = frozenset({"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"})


def unanswered(host: str, call: Call, api_key: str, error: BaseException, exchange: Exchange) -> FleetError:
    """Return the error for a call to which no answer came.

    Args:
        host: Who was asked, for people.
        call: What was asked.
        api_key: What must not be shown.
        error: What the SDK raised.
        exchange: What went over the wire: no status.
    """
    causes = list(_causes(error))
    if (ours := next((cause for cause in causes if isinstance(cause, FleetError)), None)) is not None:
        return ours
    forbidden = next((cause for cause in causes if isinstance(cause, Forbidden)), None)
    if forbidden is not None:
        return BadRequest(f"{host}: {forbidden}")
    if (lack := next(filter(None, map(lack_of, causes)), None)) is not None:
        return MachineExhausted(
            f"expected a connection to {host}, got: {lack}; raise the limit of this machine, or lower worker.slots"
        )
    if any(type(cause).__name__ in _NO_KEY for cause in causes):
        return KeyRejected(f"{host}: expected a key in the environment, got none: set the SDK's own variables")
    if not exchange.requests:
        return _refused_here(host, error, call, api_key)
    never_sent = any(type(cause).__name__ in _NOT_CONNECTED for cause in causes)
    # Without the text of the foreign error: some quote the address or the headers.
    return ProviderUnavailable(f"{host}: connection failed ({type(causes[-1]).__name__})", sent=not never_sent)


def _refused_here(host: str, error: BaseException, call: Call, api_key: str) -> FleetError:
    """Return the error for a call that pydantic-ai or an SDK did not even send."""
    said = json.dumps({"error": {"message": str(error), "type": type(error).__name__}}).encode()
    problem = problem_of(call, api_key, Exchange(raw=said))  # what it says may quote the prompt
    if isinstance(error, UserError | NotImplementedError):
        return BadRequest(f"{host}: this model takes no such request{problem}; nothing was sent")
    return BadRequest(f"{host}: expected a request that the vendor's SDK can send, got one it cannot{problem.words}")


def problem_of(call: Call, api_key: str, exchange: Exchange) -> Problem:
    """Return what the answer's body says, safe to show."""
    return read_problem(exchange.raw, secrets=(api_key,), texts=texts_of(call.messages))


def hidden(host: str, call: Call, api_key: str, exchange: Exchange) -> FleetError | None:
    """Return the error that a 2xx carries in, or in place of, its answer; None when it carries none.

    Args:
        host: Who was asked, for people.
        call: What was asked.
        api_key: What must not be shown.
        exchange: What went over the wire.
    """
    answer = error_in(exchange)
    if answer is None:
        return None
    problem = read_problem(json.dumps(answer).encode(), secrets=(api_key,), texts=texts_of(call.messages))
    error = by_status(host, call, problem, exchange)
    told = answer.get("usage")
    error.usage = read_usage(told, call, "") if isinstance(told, dict) and told else Usage()
    return error


def error_in(exchange: Exchange) -> dict[str, Any] | None:
    """Return the object of a 2xx answer, or of an event of a streamed one, that carries an error; None for most."""
    try:
        answer = json.loads(exchange.raw)
    except (ValueError, RecursionError):
        # What the model says may well be of an error; the events of a good answer carry none.
        answer = read_events(exchange.raw) if exchange.is_streamed and b"error" in exchange.raw else None
    if not isinstance(answer, dict):
        return None
    if answer.get("type") == "response.failed" and isinstance(answer.get("response"), dict):
        return cast(dict[str, Any], answer["response"])
    return answer if carries_error(answer) else None


def broken_off(host: str, call: Call, api_key: str, error: BaseException, exchange: Exchange) -> FleetError:
    """Return the error for a stream that ended before its answer was whole, without an error that it carried itself.

    Bedrock's events are not text, and its SDK raises what one of them says.
    """
    found = (getattr(cause, "response", None) for cause in _causes(error))
    told = next((response for response in found if isinstance(response, dict)), None)
    if told is not None and isinstance(said := told.get("Error"), dict):
        raw = json.dumps({"error": {"message": said.get("Message"), "type": said.get("Code")}}).encode()
        return by_status(host, call, problem_of(call, api_key, Exchange(raw=raw)), exchange)
    return ProviderUnavailable(f"{host}: expected a whole answer, got a stream that broke off ({type(error).__name__})")


def unreadable(host: str, call: Call, api_key: str, exchange: Exchange) -> FleetError:
    """Return the error for a 2xx answer that pydantic-ai could not read: what it says, where it says something."""
    problem = problem_of(call, api_key, exchange)
    if problem.said.tells:
        return by_status(host, call, problem, exchange)
    size = len(exchange.raw)
    return ProviderUnavailable(f"{host}: expected an answer in the vendor's words, got {size} bytes of something else")


def refused_schema(call: Call, problem: Problem, error: FleetError, exchange: Exchange) -> SchemaRefused | None:
    """Return what to do when it is the schema that is refused; None when it is something else, or there was none."""
    if call.wishes.schema is None or isinstance(error, KeyRejected | RateLimited):
        return None
    told = f"{problem.said.param}\n{problem.text}"
    refused = refusal_of_schema(meant_status(exchange.status or 0, problem), told)
    if refused is None:
        return None
    return SchemaRefused(f"{error}: asked again in another form", whole=refused == "whole")


def by_status(host: str, call: Call, problem: Problem, exchange: Exchange) -> FleetError:
    """Return the error that a status and a body mean, by the table that holds for all wires."""
    error = error_of(host, exchange.status or 0, problem, exchange.headers, now_s=time.time())
    return of_tier(error, problem, call.wishes.tier)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, at most 20 deep."""
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
