"""How long to wait before the next try: full jitter, with what the other side asked for as a floor.

Pure: the caller counts the tries, gives the randomness and does the waiting.
"""

from __future__ import annotations

#: Upper bound of the first pause, in seconds; it doubles with every failure. For what another try costs nothing.
BASE_S = 0.2
#: Longest pause that doubling reaches, in seconds. A floor may lie above it.
CAP_S = 10.0
#: Upper bounds of the pauses after failed calls, in seconds: four tries of a task spread over more than a minute, and
#: outlast a provider's restart.
SPREAD_S = (1.0, 4.0, 16.0, 60.0)
#: Doublings after which the cap is surely reached; keeps `2 ** failures` a small number.
MAX_DOUBLINGS = 30


def full_jitter(
    failures: int, *, share: float, base_s: float = BASE_S, cap_s: float = CAP_S, floor_s: float = 0.0
) -> float:
    """Return seconds to wait after the `failures`-th failure in a row.

    `floor_s + share * min(cap_s, base_s * 2 ** (failures - 1))`: the "full jitter" of the AWS Architecture Blog
    ("Exponential Backoff And Jitter", 2015). Ours differs in the floor: it is added and not a maximum, so that
    callers who got the same Retry-After do not come back at the same moment.

    Weakness: it spreads a herd in time but does not make it smaller; that takes a limiter and a breaker.

    Args:
        failures: Failures so far, 1 or more.
        share: A fresh random number, 0 to 1.
        base_s: Upper bound of the first pause.
        cap_s: Upper bound of any jitter.
        floor_s: What Retry-After said, 0 when it said nothing.
    """
    return floor_s + share * min(cap_s, base_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS))


def spread(failures: int, *, share: float, floor_s: float = 0.0) -> float:
    """Return seconds to wait after the `failures`-th failed call: as `full_jitter`, up to the bounds of `SPREAD_S`.

    Args:
        failures: Failures so far, 1 or more.
        share: A fresh random number, 0 to 1.
        floor_s: The least.
    """
    return floor_s + share * SPREAD_S[min(failures, len(SPREAD_S)) - 1]
