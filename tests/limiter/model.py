"""The limiter's three scripts in plain Python: the same inputs and time give the same replies and state."""

from __future__ import annotations

import math
from collections.abc import Sequence

State = dict[str, int]
Reply = list[int]

MINUTE_US = 60_000_000


def acquire(state: State, args: Sequence[float], now: int) -> Reply:
    """Reserve the next slot in `state`, or leave it alone."""
    tokens, request_us, tokens_us, request_burst, token_burst, jitter, draw, max_wait = args
    r, t = state.get("r", 0), state.get("t", 0)
    slot = max(now, state.get("p", 0))
    if request_us:
        slot = max(slot, r + int(request_us - request_burst))
    if tokens_us:
        slot = max(slot, t + int(min(tokens_us, token_burst) - token_burst))
    wait = slot - now
    if wait > max_wait:
        return [0, wait, now]
    alone = r <= now and t <= now and wait == 0
    step = 0 if alone else math.floor(draw * min(jitter, max(request_us, tokens_us), max_wait - wait))
    state["r"] = max(slot, r) + int(request_us) if request_us else r
    state["t"] = max(slot, t) + int(tokens_us) if tokens_us else t
    state["n"] = state.get("n", 0) + 1
    state["k"] = state.get("k", 0) + int(tokens)
    return [1, wait + step, now]


def settle(state: State, args: Sequence[int], now: int) -> Reply:
    """Move the token clock of `state` and count the call in its minute."""
    back_us, back, requests, used, token_burst = args
    if not state:
        return [0, 0, now]
    t, p = state.get("t", 0), state.get("p", 0)
    state["t"] = max(t - back_us, min(t, p + token_burst)) if p > now else t - back_us
    state["k"] = state.get("k", 0) - back
    minute, counted = now // MINUTE_US, state.get("m", 0)
    this = (state.get("mr", 0), state.get("mt", 0))
    last = (state.get("lr", 0), state.get("lt", 0))
    if minute != counted:
        last, this = (this if minute == counted + 1 else (0, 0)), (0, 0)
    state["m"], state["mr"], state["mt"] = minute, this[0] + requests, this[1] + used
    state["lr"], state["lt"] = last
    return [1, 0, now]


def penalise(state: State, args: Sequence[int], now: int) -> Reply:
    """Hold `state` and take its burst."""
    retry_after, request_us, request_burst, token_burst = args
    state["p"] = max(state.get("p", 0), now + retry_after)
    state["r"] = max(state.get("r", 0), state["p"] + request_burst - request_us)
    state["t"] = max(state.get("t", 0), state["p"] + token_burst)
    state["x"], state["xa"] = state.get("x", 0) + 1, now
    return [1, state["p"] - now, now]
