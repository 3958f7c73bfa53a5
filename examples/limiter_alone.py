"""Use the rate limiter in a program of your own: it needs a Redis, but no worker and no pool.

`python limiter_alone.py redis://localhost:6379/0`. Start it several times at once: all share the one limit.
"""

import asyncio
import sys
import time

from fleet.config import LimitSettings
from fleet.limiter import Caller, limited, open_limiter

CALLS = 40
# 600 requests a minute, of which 30 may go at once: ten a second after that.
LIMITS = {"openai/gpt-5": LimitSettings(rpm=600, burst=0.05, counting="bucket")}


async def main(url: str) -> None:
    started = time.monotonic()
    async with open_limiter(url, LIMITS) as limiter:
        for _ in range(CALLS):
            async with limited(limiter, "openai/gpt-5/my-key", tokens=100, caller=Caller(bot="me")) as call:
                call.used(80)  # send your request here, then say what it used
        print(CALLS, "calls in", round(time.monotonic() - started, 1), "s")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected the URL of a Redis, such as redis://localhost:6379/0")
    asyncio.run(main(sys.argv[1]))
