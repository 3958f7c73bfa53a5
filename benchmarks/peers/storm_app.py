"""What people build today, as `benchmarks.storm` runs it: stock Celery whose task calls the API and tries again.

STORM_STRATEGY: naive (at once, again and again), jitter (tenacity, full jitter), breaker (pybreaker, one a process,
under the same jitter). STORM_URL and STORM_KEY: root and key of the API; STORM_BROKER: Redis.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from celery import Celery

#: Tries of a call until its task fails (count), and the longest pause between two of them (s).
TRIES, LONGEST_PAUSE_S = 10, 30.0
#: Failures in a row that open the breaker (count), and how long it stays open (s).
FAILURES, OPEN_S = 5, 10.0
#: Seconds until a call is given up.
TIMEOUT_S = 10.0

app = Celery("storm", broker=os.environ.get("STORM_BROKER"), backend=os.environ.get("STORM_BROKER"))
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_queue_max_priority=10,
    broker_transport_options={"queue_order_strategy": "priority", "priority_steps": [0, 9]},
    task_default_priority=9,
    broker_connection_retry_on_startup=True,
)


def call(prompt: str) -> str:
    """Ask once; raises `OSError` for a refusal and for no answer."""
    body = {"model": os.environ["STORM_MODEL"], "messages": [{"role": "user", "content": prompt}], "max_tokens": 32}
    headers = {"Authorization": f"Bearer {os.environ['STORM_KEY']}", "Content-Type": "application/json"}
    url = f"{os.environ['STORM_URL']}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


def _naive() -> Callable[[str], str]:
    def again(prompt: str) -> str:
        for _ in range(TRIES - 1):
            try:
                return call(prompt)
            except OSError:
                continue
        return call(prompt)

    return again


def _jitter(ask: Callable[[str], str] = call, gives_up: Any = OSError) -> Callable[[str], str]:
    from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    return retry(
        wait=wait_random_exponential(multiplier=1, max=LONGEST_PAUSE_S),
        stop=stop_after_attempt(TRIES),
        retry=retry_if_exception_type(gives_up),
        reraise=True,
    )(ask)


def _breaker() -> Callable[[str], str]:
    import pybreaker

    breaker = pybreaker.CircuitBreaker(fail_max=FAILURES, reset_timeout=OPEN_S)
    return _jitter(breaker(call), (OSError, pybreaker.CircuitBreakerError))


_STRATEGIES: dict[str, Callable[[], Callable[[str], str]]] = {
    "naive": _naive, "jitter": _jitter, "breaker": _breaker, "once": lambda: call,
}  # fmt: skip
_ask = _STRATEGIES[os.environ.get("STORM_STRATEGY", "naive")]()


@app.task(name="storm.ask")
def ask(prompt: str) -> str:
    """Answer a prompt."""
    return _ask(prompt)
