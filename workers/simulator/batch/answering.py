"""Answers a request of a job as a call at once is answered, and books it at the price of the job's tier.

Limits of a minute do not hold for it: jobs have a queue of their own. A call that would be cut comes whole, and
one that hangs is never answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from fleet.workers.simulator.batch.jobs import LaterAnswer
from fleet.workers.simulator.chance import Draw, fate_of
from fleet.workers.simulator.ledger import Account, Classes, Ledger, Served
from fleet.workers.simulator.odd.answers import readable
from fleet.workers.simulator.odd.catalogue import PREFIX, wished
from fleet.workers.simulator.odd.refusals import OddCall
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.rich.model import SimulatedModel
from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.wires.kept_responses import KeptResponses
from fleet.workers.simulator.wires.wire import CompletionRequest, Wire, encode_json, read_object

#: Headers of a request in a job, as if it came alone.
_HEADERS: Mapping[str, str] = {"anthropic-version": "2023-06-01"}
#: The tier of batches, in the ledger and in Anthropic's usage.
BATCH = "batch"


class Answerer(Protocol):
    """What answers and bills."""

    options: SimulatorOptions
    ledger: Ledger
    model: SimulatedModel
    kept: KeptResponses


class LaterCall(NamedTuple):
    """One request of a job.

    Args:
        wire: Its format.
        key: Who pays.
        body: As it stands in the job.
        tier: How the ledger bills it.
        at_s: Time of the clock.
    """

    wire: Wire
    key: str
    body: dict[str, Any]
    tier: str
    at_s: float


def answer_later(provider: Answerer, call: LaterCall) -> LaterAnswer | None:
    """Answer one request, and book it; None when it hangs."""
    account = provider.ledger.account(call.key)
    try:
        if call.body.get("stream"):
            raise WireError("stream: expected no stream in a batch", param="stream")
        return _answered(provider, call, account)
    except WireError as error:
        account.reject()
        return _refused(call.wire, 400, str(error), param=error.param, code=error.code)


def _answered(provider: Answerer, call: LaterCall, account: Account) -> LaterAnswer | None:
    """Return what comes of a request, and count it at its end. Raises `WireError`, and has counted nothing then."""
    wire, options, model = call.wire, provider.options, provider.model
    body = wire.understood(provider.kept.unfolded(call.key, call.body), "", {}) if wire.is_translated else call.body
    asked = wire.read(body, _HEADERS)
    draw = model.chance.draw(call.key, encode_json(call.body).encode("ascii"))
    model.chance.use(draw)
    odd = wished(asked.model, None) if asked.model.startswith(PREFIX) else None
    if odd is not None and odd.refuse is not None and (refused := odd.refuse(OddCall(wire, body, asked))) is not None:
        account.calls += 1
        account.refuse(refused.means or refused.status)
        return LaterAnswer(refused.status, refused.body if isinstance(refused.body, dict) else {"error": refused.body})
    fate = fate_of(draw, error_rate=options.error_rate, hang_rate=options.hang_rate, cut_rate=0.0)
    if fate == "hang":
        return None
    if fate == "error":
        account.calls += 1
        account.errors_5xx += 1
        return _refused(wire, wire.failure_status(draw.words), "simulated failure")
    values, spent = _said(model, call, asked, draw)
    if odd is not None and odd.spoil is not None:
        odd.spoil(values)
    values = wire.told(values)
    if asked.wanted is not None and asked.wanted.responding is not None:
        provider.kept.keep(call.key, asked.wanted.responding, values)
    account.calls += 1
    provider.ledger.serve(account, spent)
    used = spent.classes
    return LaterAnswer(200, values, (spent.input_tokens, used.cached, spent.output_tokens, used.thinking))


def _said(
    model: SimulatedModel, call: LaterCall, asked: CompletionRequest, draw: Draw
) -> tuple[dict[str, Any], Served]:
    """Return a body and what it took. Raises `WireError`."""
    conduct = model.hear(asked)
    spoilt = model.bad_bots.answer(conduct, draw, max_tokens=asked.max_tokens) if conduct else None
    if conduct is not None:
        conduct.count(draw, spoilt=spoilt is not None)
    if asked.wanted is None:
        answer = spoilt or model.say(asked, draw, asked.max_tokens)
        values = readable(call.wire.answer(asked, answer, draw.id, int(call.at_s)))
        made, used, is_matched = answer.tokens, Classes(), answer.matched
    else:
        spoken = model.speak(asked, asked.wanted, draw, spoilt, f"{call.key}/{asked.model}", call.at_s)
        values = call.wire.rich_answer(asked, spoken, draw.id, int(call.at_s))
        used = model.used(asked, spoken, call.wire, call.at_s)
        made, is_matched = spoken.tokens, spoken.choices[0].matched
    used = used._replace(tier=call.tier)
    if call.tier == BATCH and "cache_read_input_tokens" in values.get("usage", {}):  # Anthropic's usage tells it
        values["usage"]["service_tier"] = BATCH
    return values, Served(asked.model, asked.input_tokens, made, used, matched=is_matched)


def _refused(
    wire: Wire, status: int, message: str, *, param: str | None = None, code: str | None = None
) -> LaterAnswer:
    return LaterAnswer(status, read_object(wire.error(status, message, param=param, code=code)))
