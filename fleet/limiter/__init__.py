"""The rate limiter: permission to send one call at a stated time, for the whole fleet.

`Limiter` is the facade; `limits.py` turns rates into times, the `.lua` files decide inside Redis.
"""

from fleet.limiter.limiter import Limiter, LimitSnapshot
from fleet.limiter.limits import Pace

__all__ = ["LimitSnapshot", "Limiter", "Pace"]
