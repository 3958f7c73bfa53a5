"""Whether calls to a provider, model and key are worth sending, for the whole fleet: breakers and a retry budget.

A breaker opens after failures that are no single task's, lets probes through at a cadence, and closes with the first
success. What becomes of the tasks that wait is not decided here.
"""

from fleet.resilience.breakers import Breakers
from fleet.resilience.by_hand import close_breaker, gates_are_open
from fleet.resilience.fingerprint import fingerprint_of
from fleet.resilience.rules import BREAKING
from fleet.resilience.view import BreakerView, read_breakers, read_breakers_now

__all__ = [
    "BREAKING",
    "BreakerView",
    "Breakers",
    "close_breaker",
    "fingerprint_of",
    "gates_are_open",
    "read_breakers",
    "read_breakers_now",
]
