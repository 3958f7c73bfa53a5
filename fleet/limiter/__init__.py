"""The rate limiter: permission to send one call at a stated time, for the whole fleet.

`Limiter` is the facade; `limits.py` turns rates into times, the `.lua` files decide inside Redis.
"""

from fleet.grants import Caller, Grant
from fleet.limiter.alone import LimitedCall, ThreadedLimiter, limited, open_limiter
from fleet.limiter.call import FRESH_S
from fleet.limiter.limiter import Limiter
from fleet.limiter.limits import Terms
from fleet.limiter.snapshot import Crowd, LearntCosts, LimitSnapshot

__all__ = [
    "FRESH_S",
    "Caller",
    "Crowd",
    "Grant",
    "LearntCosts",
    "LimitSnapshot",
    "LimitedCall",
    "Limiter",
    "Terms",
    "ThreadedLimiter",
    "limited",
    "open_limiter",
]
