"""The simulator's other pages: health, models, the ledger, and the switches for whoever may use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from aiohttp import web

from fleet.errors import ConfigurationError
from fleet.workers.simulator.admission import TakenKeys
from fleet.workers.simulator.bad_bots import BadBots, BadMode
from fleet.workers.simulator.batch.faults import BatchFaults
from fleet.workers.simulator.collapse import Collapse, Mode
from fleet.workers.simulator.ledger import Ledger
from fleet.workers.simulator.odd.catalogue import ODD, PREFIX, RETIRING, OddMode
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.rich.model import SimulatedModel
from fleet.workers.simulator.voices import read_query
from fleet.workers.simulator.wires.sending import MARK, respond
from fleet.workers.simulator.wires.wire import encode_json

#: Model that `GET /v1/models` names first. Any other name works as well.
MODEL = "simulated-1"
#: When the model ends that is listed so.
END_OF_RETIRING = "2030-01-01"
#: Models that act as agents' do.
AGENTS = ("agent", "agent-5", "agent-loop", "agent-fan")
#: What `POST /failures` switches.
RATES = ("error_rate", "hang_rate", "cut_rate", "flex_busy_rate")

Page = Callable[[web.BaseRequest], web.Response]


class Switched(Protocol):
    """What the pages show and switch."""

    options: SimulatorOptions
    ledger: Ledger
    model: SimulatedModel
    collapse: Collapse
    bad_bots: BadBots
    odd_mode: OddMode
    taken_keys: TakenKeys
    batch_faults: BatchFaults


class Pages:
    """All pages by method and path."""

    def __init__(self, simulator: Switched) -> None:
        self._simulator = simulator
        self._open: Mapping[tuple[str, str], Page] = {
            ("GET", "/healthz"): lambda request: _json({"status": "ok", "simulator": True}),
            ("GET", "/v1/models"): _models,
            ("GET", "/v1beta/models"): _gemini_models,
        }
        self._admin: Mapping[tuple[str, str], Page] = {
            ("GET", "/ledger"): self._ledger,
            ("POST", "/ledger/reset"): self._reset,
            ("GET", "/collapse"): self._collapsed,
            ("POST", "/collapse"): self._switch_collapse,
            ("GET", "/bad"): self._bad,
            ("POST", "/bad"): self._switch_bad,
            ("POST", "/failures"): self._switch_failures,
            ("GET", "/odd"): self._odd,
            ("POST", "/odd"): self._switch_odd,
            ("GET", "/keys"): self._keys,
            ("POST", "/keys"): self._switch_keys,
            ("GET", "/batch-faults"): self._batch_faults,
            ("POST", "/batch-faults"): self._switch_batch_faults,
        }
        self._paths = frozenset(path for _, path in (*self._open, *self._admin))

    def find(self, method: str, path: str) -> tuple[Page | None, bool]:
        """Return the page of a request, and whether only an admin may see it; None when there is none."""
        if method == "GET" and path.startswith(_MODELS_PATH) and path.removeprefix(_MODELS_PATH):
            return _model, False
        found = self._open.get((method, path))
        return (found, False) if found is not None else (self._admin.get((method, path)), True)

    def knows(self, path: str) -> bool:
        """True when a page is there for some method."""
        return path in self._paths

    def _ledger(self, request: web.BaseRequest) -> web.Response:
        model = self._simulator.model
        answers = {"recorded": model.recorded, "duplicates": model.duplicates}
        return _json({**self._simulator.ledger.report(), "answers": answers})

    def _reset(self, request: web.BaseRequest) -> web.Response:
        self._simulator.ledger.reset()
        return self._ledger(request)

    def _collapsed(self, request: web.BaseRequest) -> web.Response:
        return _json(self._simulator.collapse.report())

    def _switch_collapse(self, request: web.BaseRequest) -> web.Response:
        """Let voices collapse, or end it: /collapse?share=0.1&noise=0.05&until=persona&seed=7."""
        try:
            self._simulator.collapse.switch(Mode.read(request.query))
        except ValueError as error:
            return _wrong(error)
        return self._collapsed(request)

    def _bad(self, request: web.BaseRequest) -> web.Response:
        return _json(self._simulator.bad_bots.report())

    def _switch_bad(self, request: web.BaseRequest) -> web.Response:
        """Let voices go bad, or end it: /bad?errors=7&avoidance=7&slow=0.06&error_share=0.5&pace=4&seed=7."""
        try:
            self._simulator.bad_bots.switch(BadMode.read(request.query))
        except ValueError as error:
            return _wrong(error)
        return self._bad(request)

    def _switch_failures(self, request: web.BaseRequest) -> web.Response:
        """Let the provider itself fail, or end it: /failures?error_rate=1&hang_rate=0&cut_rate=0."""
        try:
            rates = read_query(request.query, dict.fromkeys(RATES, float))
            self._simulator.options = replace(self._simulator.options, **rates)
        except (ValueError, ConfigurationError) as error:
            return _wrong(error)
        return _json({name: getattr(self._simulator.options, name) for name in RATES})

    def _odd(self, request: web.BaseRequest) -> web.Response:
        return _json({**asdict(self._simulator.odd_mode), "known": {name: odd.says for name, odd in ODD.items()}})

    def _keys(self, request: web.BaseRequest) -> web.Response:
        return _json(self._simulator.taken_keys.report())

    def _switch_keys(self, request: web.BaseRequest) -> web.Response:
        """Take only some keys, by their labels in the ledger, or any again: /keys?only=sk-a..0a1b2c3d, /keys?only=."""
        try:
            self._simulator.taken_keys.switch(read_query(request.query, {"only": str}).get("only", ""))
        except ValueError as error:
            return _wrong(error)
        return self._keys(request)

    def _batch_faults(self, request: web.BaseRequest) -> web.Response:
        return _json(self._simulator.batch_faults.report())

    def _switch_batch_faults(self, request: web.BaseRequest) -> web.Response:
        """Let the next batches meet faults, so many of each: /batch-faults?stuck=1&lost_create=2."""
        try:
            self._simulator.batch_faults.switch(request.query)
        except ValueError as error:
            return _wrong(error)
        return self._batch_faults(request)

    def _switch_odd(self, request: web.BaseRequest) -> web.Response:
        """Let a share of all calls behave oddly, or end it: /odd?name=overloaded-529&share=0.5, /odd?name=."""
        try:
            self._simulator.odd_mode = OddMode.read(request.query)
        except ValueError as error:
            return _wrong(error)
        return self._odd(request)


_MODELS_PATH = "/v1/models/"


def _models(request: web.BaseRequest) -> web.Response:
    """Return the one list of models in two vendors' shape, each SDK reads its own fields; to Gemini's in its own."""
    if not _has_key(request.headers):
        return _unauthorized()
    if "x-goog-api-key" in request.headers:
        return _gemini_models(request)
    names = [MODEL, *(f"{PREFIX}{name}" for name in ODD), *AGENTS]
    told = [_told(name) for name in names]
    return _json({"object": "list", "data": told, "has_more": False, "first_id": names[0], "last_id": names[-1]})


def _gemini_models(request: web.BaseRequest) -> web.Response:
    """Return the list of models in Gemini's shape."""
    if not _has_key(request.headers):
        return _unauthorized()
    names = [MODEL, *(f"{PREFIX}{name}" for name in ODD), *AGENTS]
    ways = ["generateContent", "streamGenerateContent"]
    told = [
        {"name": f"models/{name}", "displayName": "Fleet simulator", "supportedGenerationMethods": ways,
         "inputTokenLimit": 1_000_000, "outputTokenLimit": 100_000}
        for name in names
    ]  # fmt: skip
    return _json({"models": told})


def _model(request: web.BaseRequest) -> web.Response:
    """Return one model: any name is one."""
    return _json(_told(request.path.removeprefix(_MODELS_PATH))) if _has_key(request.headers) else _unauthorized()


def _told(name: str) -> dict[str, Any]:
    ends = END_OF_RETIRING if name == f"{PREFIX}{RETIRING}" else None
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "fleet-simulator",
        "type": "model",
        "display_name": "Fleet simulator",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active" if ends is None else "deprecated",
        "shutdown_date": ends,
        "retires_at": None if ends is None else f"{ends}T00:00:00Z",
        "max_input_tokens": 1_000_000,
        "max_tokens": 100_000,
    }


def _has_key(headers: Mapping[str, str]) -> bool:
    own = headers.get("x-api-key") or headers.get("x-goog-api-key", "")
    return bool(headers.get("Authorization", "").removeprefix("Bearer ").strip() or own.strip())


def _unauthorized() -> web.Response:
    error = {"message": "expected a key, got none", "type": "invalid_request_error", "code": "invalid_api_key"}
    return respond(401, encode_json({"error": {**error, "param": None}}).encode("ascii"), MARK)


def _wrong(error: Exception) -> web.Response:
    told = {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}
    return respond(400, encode_json({"error": told}).encode("ascii"), MARK)


def _json(value: Mapping[str, Any]) -> web.Response:
    return respond(200, encode_json(value).encode("ascii"), MARK)
