"""What a provider's refusal means: (status, body, headers) -> one error of `fleet.errors`, with whose fault it is.

One road for real statuses and for errors in a 2xx. Sentences (`wordings.py`) are looked at only where the status leaves
it open, and never where they quote the prompt. The default is "unknown", with the provider's words. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fleet.errors import (
    BadRequest,
    FleetError,
    KeyRejected,
    KeySpent,
    NotServed,
    ProviderUnavailable,
    RateLimited,
    TierBusy,
)
from fleet.workers.providers import wordings
from fleet.workers.providers.delays import read_delay
from fleet.workers.providers.problem import Problem
from fleet.workers.providers.rates.headers import read_rates
from fleet.workers.providers.rates.parallel import read_parallel
from fleet.workers.providers.rates.retry_after import MAX_RETRY_AFTER_S, read_retry_after

#: An error in a 2xx that names no status: a gateway that got nothing from its own provider.
BAD_GATEWAY = 502
#: 4xx statuses that say "not now" and not "not like this": timeouts, locks, a lost upstream, no capacity, cancelled.
PASSING_4XX = frozenset({408, 409, 423, 424, 425, 444, 449, 460, 498, 499})
#: Statuses of a gateway or a server that itself got no answer in time.
TIMED_OUT = frozenset({408, 504, 524})
#: 5xx statuses that no repeat will change.
LASTING_5XX = frozenset({501, 505, 510})
#: 5xx statuses under which proxies hand on every error of those behind them, also a refused key or model.
UPSTREAM_5XX = frozenset({500, 502})
#: 4xx statuses of a web server that has no such API at this address.
WRONG_ADDRESS = frozenset({404, 405, 410, 421, 426})
#: Statuses that providers and proxies give to errors of every kind: there the body decides.
VAGUE = frozenset({400, 422})
#: Seconds from which a quota that fills again is a matter for the key, and no pause.
QUOTA_FROM_S = 600.0


def error_of(host: str, status: int, problem: Problem, headers: Mapping[str, str], *, now_s: float) -> FleetError:
    """Return the error for an answer that is none: a status of 300 and above, or a 2xx that carries an error.

    Args:
        host: Who answered, for the message.
        status: HTTP status of the answer.
        problem: What its body says.
        headers: Of the answer; names in any case when the mapping allows it, else lower case.
        now_s: Unix time in seconds.
    """
    told = f"{host} answered {status}{' with an error' if status < 300 else ''}{problem}"
    if 300 <= status < 400:
        return NotServed(f"{told}, a redirect: expected `base_url` to be the API's own address")
    case = _Case(told.removesuffix("."), meant_status(status, problem), problem, headers, now_s)
    return case.of_money() or case.of_content() or case.of_key() or case.that_passes() or case.that_lasts()


def of_tier(error: FleetError, problem: Problem, tier: str | None) -> FleetError:
    """Return what an error means for a call that has asked for a tier: a want of room there is no limit of its key's.

    Args:
        error: As it was understood.
        problem: What the body says.
        tier: That was asked; None: the usual one, whose want of room is everybody's.
    """
    if tier is None or not isinstance(error, RateLimited | ProviderUnavailable):
        return error
    if any(wordings.TIER_CODES.search(word) for word in problem.said.words):
        return TierBusy(f"{error}: the tier {tier} has no room now", retry_after_s=error.retry_after_s)
    return error


def meant_status(status: int, problem: Problem) -> int:
    """Return the status that an answer means: its own, or the body's where its own says little.

    Args:
        status: HTTP status of the answer.
        problem: What its body says.
    """
    number = problem.said.status
    named = {wordings.STATUS_OF[word] for word in problem.said.words if word in wordings.STATUS_OF}
    of_words = _of_page if problem.said.is_page else _of_text
    if status < 300:
        return number or _of_grpc(problem.said.code) or _of_names(named) or of_words(problem.text)
    if status not in VAGUE and status != 403 and status < 500:
        return status
    if 429 in (number, *named) or (status < 500 and not problem.refusal and wordings.RATE.search(problem.text)):
        return 429
    if status == 403:
        return status
    return number or _of_names(named - {400, 500}) or status


def _of_grpc(code: str) -> int | None:
    return wordings.STATUS_OF_GRPC.get(int(code)) if code.isdigit() and len(code) < 3 else None


def _of_names(named: set[int]) -> int | None:
    """Return what is most telling of several names: `invalid_request_error` stands beside much."""
    return max(named, key=lambda status: (status not in VAGUE, status != 500, status)) if named else None


def _of_text(text: str) -> int:
    """Return the status that the sentences of an error in a 2xx mean."""
    of_kinds = (
        (429, wordings.RATE), (402, wordings.PURSE_LIMIT), (402, wordings.QUOTA), (400, wordings.FILTERED),
        (401, wordings.KEY), (503, wordings.BUSY), (404, wordings.NO_MODEL),
    )  # fmt: skip
    return next((status for status, pattern in of_kinds if pattern.search(text)), BAD_GATEWAY)


def _of_page(text: str) -> int:
    """Return the status that a page in a 2xx means: a web server's own, unless it says that something is wrong."""
    return BAD_GATEWAY if wordings.TROUBLE.search(text) else 404


@dataclass(frozen=True, slots=True)
class _Case:
    """One refusal: each method gives the error if it is of its kind."""

    told: str
    status: int
    problem: Problem
    headers: Mapping[str, str]
    now_s: float

    def of_money(self) -> FleetError | None:
        """The key's money, credit or quota is used up; a quota that soon fills again is a rate."""
        if not self._is_spent():
            return None
        delay_s = self._delay_s
        if delay_s is None or delay_s < QUOTA_FROM_S:
            return KeySpent(f"{self.told}: this key's money, credit or quota is used up; fill it, or use another key")
        at = self.now_s + delay_s
        date = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        told = f"{self.told}: this key's quota is used up until {date}; raise it, or use another key"
        return KeySpent(told, passes_at=at)

    def of_content(self) -> FleetError | None:
        """Content rules refuse the prompt; or the account is barred, which no other prompt will change."""
        if self.status in (401, 429):
            return None
        if self.status < 500 and self._says(wordings.BARRED):
            return KeyRejected(f"{self.told}: check this key, its account and its rights")
        if self._names(wordings.FILTER_CODES) or (self.status < 500 and self._says(wordings.FILTERED)):
            return BadRequest(
                f"{self.told}: the provider's content rules refuse this prompt; change it", blame="prompt"
            )
        return None

    def of_key(self) -> FleetError | None:
        """The provider does not take the key; or a server says with a status of its own that the next one does not."""
        is_code = 400 <= self.status < 500 and self.status not in (404, 429) and self._names(wordings.KEY_CODES)
        is_said = self._is_open and self._says(wordings.KEY)
        is_behind = self.status in UPSTREAM_5XX and (self._names(wordings.KEY_CODES) or self._says(wordings.SURELY_KEY))
        if self.status == 401 or is_code or is_said or is_behind:
            return KeyRejected(f"{self.told}: check this key and its rights")
        return None

    def that_passes(self) -> FleetError | None:
        """A rate, or a provider that cannot now."""
        if self.status == 429:
            return self._limited()
        if self.status in UPSTREAM_5XX and (self._names(wordings.MODEL_CODES) or self._says(wordings.SURELY_NO_MODEL)):
            return self._without_model()
        retries = self._retries
        is_busy = self.status in VAGUE and not self.problem.refusal and self._says(wordings.BUSY)
        if not (retries or is_busy or self.status in PASSING_4XX or self.status >= 500) or (
            self.status in LASTING_5XX and not retries
        ):
            return None
        if retries is False:
            return ProviderUnavailable(f"{self.told}: it says not to try again", passes=False, refused=True)
        is_late = self.status in TIMED_OUT
        error = ProviderUnavailable(
            self.told, retry_after_s=_bounded(self._delay_s), timed_out=is_late, refused=not is_late
        )
        error.passes_at = None if self._delay_s is None else self.now_s + self._delay_s
        return error

    def that_lasts(self) -> FleetError:
        """What no repeat will change: the configuration's where the model or the address is wrong, else unknown."""
        told = self.told
        if self.status in (400, 403, 404, 410, 422, 501) and self._has_no_model():
            return self._without_model()
        if self.status == 403:
            return KeyRejected(f"{told}: check this key, its rights and its money")
        if self.status == 407:
            return NotServed(f"{told}: the proxy wants a login; correct HTTPS_PROXY, or exempt the host by NO_PROXY")
        is_address = self.status in WRONG_ADDRESS and not self._says(wordings.OTHER_THING)
        if is_address or (self.status in (*VAGUE, 404) and self._says(wordings.NO_ADDRESS)):
            return NotServed(f"{told}: expected the API at this address; correct its `base_url`, or the pool's `model`")
        if self.status == 413 or (self.status in VAGUE and self._says(wordings.TOO_LONG)):
            return BadRequest(told, blame="prompt")
        return BadRequest(told)

    def _without_model(self) -> NotServed:
        told = f"{self.told}: expected a model that this API has for this key; correct the pool's `model`"
        return NotServed(told)

    def _is_spent(self) -> bool:
        if self.status == 402 or self._names(wordings.SPENT_CODES):
            return True
        if self.status == 413:
            return False
        is_rate = self.status == 429 and (self._delay_s or QUOTA_FROM_S) < QUOTA_FROM_S
        if self._says(wordings.SPENT) and not (is_rate and self._says(wordings.RATE)):
            return True
        if self.status == 429 and (self._retries is False or self._says(wordings.NOTHING_ALLOWED)):
            return True
        if is_rate or self.status >= 500 or self.status in PASSING_4XX or self.problem.refusal:
            return False
        return self._says(wordings.PURSE_LIMIT) or (self._says(wordings.QUOTA) and not self._says(wordings.RATE))

    def _limited(self) -> RateLimited:
        """Return a 429. One for too many calls at once is over when one of them ends, whatever time comes with it."""
        most = read_parallel(self.headers, " ".join((self.problem.text, *self.problem.said.words)))
        parallel = most is not None
        delay_s = self._delay_s
        if delay_s is None:
            delay_s = read_retry_after(self.headers, now_s=self.now_s)
        if parallel:
            delay_s = None
        rates = read_rates(self.headers, now_s=self.now_s)
        error = RateLimited(
            self.told, retry_after_s=_bounded(delay_s), rates=rates, parallel=parallel, most_parallel=most or 0
        )
        error.passes_at = None if delay_s is None else self.now_s + delay_s
        return error

    def _has_no_model(self) -> bool:
        if self.problem.param not in ("", "model") or self.problem.refusal not in ("", "model"):
            return False
        return self._names(wordings.MODEL_CODES) or self._says(wordings.NO_MODEL)

    @property
    def _is_open(self) -> bool:
        """True where the status alone does not tell: a refusal that is not of a parameter."""
        return (
            400 <= self.status < 500
            and self.status != 429
            and self.status not in PASSING_4XX
            and not (self.problem.refusal or self.problem.param)
        )

    @property
    def _retries(self) -> bool | None:
        """What `x-should-retry` says, by which OpenAI and Anthropic steer their own clients."""
        return {"true": True, "false": False}.get((self.headers.get("x-should-retry") or "").strip().lower())

    @property
    def _delay_s(self) -> float | None:
        told = read_retry_after(self.headers, now_s=self.now_s, resets=False)
        return read_delay(self.problem.said, now_s=self.now_s) if told is None else told

    def _names(self, pattern: re.Pattern[str]) -> bool:
        return any(pattern.search(word) for word in self.problem.said.words)

    def _says(self, pattern: re.Pattern[str]) -> bool:
        return pattern.search(self.problem.text) is not None


def _bounded(delay_s: float | None) -> float | None:
    return None if delay_s is None else min(delay_s, MAX_RETRY_AFTER_S)
