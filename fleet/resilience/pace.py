"""How fast a model answers, learnt from its answers, so that slow ones are known as slow. Pure; one per limit.

A line through seconds and output tokens, by least squares in which older calls count less: its slope is the model's
seconds per output token, its height at 0 the wait for the first one.
"""

from __future__ import annotations

#: What a call counts less than the next one: about the last 200 count.
FADE = 0.995
#: Calls from which on the line is trusted.
LEAST_CALLS = 20
#: So many times what its length usually takes is slow.
SLOW = 5.0


class Pace:
    """Seconds per output token of one model, and its base latency."""

    def __init__(self) -> None:
        self._calls = self._tokens = self._seconds = self._squares = self._products = 0.0

    def is_slow(self, seconds: float, output_tokens: int) -> bool:
        """Learn from an answered call, and say whether it took far longer than such calls do."""
        base_s, per_token_s = self._line()
        is_slow = self._calls >= LEAST_CALLS and seconds > SLOW * (base_s + per_token_s * output_tokens)
        if not is_slow:  # what is slow must not become usual
            self._learn(seconds, float(output_tokens))
        return is_slow

    def _learn(self, seconds: float, tokens: float) -> None:
        self._calls = self._calls * FADE + 1
        self._tokens = self._tokens * FADE + tokens
        self._seconds = self._seconds * FADE + seconds
        self._squares = self._squares * FADE + tokens * tokens
        self._products = self._products * FADE + tokens * seconds

    def _line(self) -> tuple[float, float]:
        """Return seconds to the first token, and seconds per token."""
        if not self._calls:
            return 0.0, 0.0
        spread = self._squares - self._tokens**2 / self._calls
        if spread <= 1e-6 * self._squares or not self._tokens:  # all of one length: what they take is per token
            return 0.0, self._seconds / self._tokens if self._tokens else 0.0
        slope = max(0.0, (self._products - self._tokens * self._seconds / self._calls) / spread)
        return max(0.0, (self._seconds - slope * self._tokens) / self._calls), slope
