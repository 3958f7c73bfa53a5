"""How alike the answers of one window are: an order-2 Vendi score, the nearest-neighbour share, and each bot's part.

Pure, in numpy, which is imported on use only: of all processes of a fleet only the leader needs it (about 25 MB).

Pairs are looked at in two aspects, because sameness means something else in each: `across` different prompts, where
bots that fall into one answer show, and `within` one prompt, where bots that no longer differ show. A class that is
asked one question a hundred times is not alike by that, and a change in the mix of questions is no collapse.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fleet.diversity.fingerprint import BINS, Fingerprint
from fleet.frozen import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Aspect = Literal["across", "within"]
ASPECTS: tuple[Aspect, ...] = ("across", "within")

#: Pairs of answers below which an aspect of a window is not judged.
MIN_PAIRS = 200
#: Share of a healthy window's pairs that lie below the floor: likeness is what exceeds it. Answers to one question
#: are alike to begin with, and half of their pairs are enough to know by how much.
FLOOR_QUANTILES: dict[Aspect, float] = {"across": 0.9, "within": 0.5}
#: Highest floor: above it there is no room left to tell more alike from alike.
MAX_FLOOR = 0.9
#: Share of a healthy window's pairs that are no near neighbours; and the bounds of that similarity.
NEAR_QUANTILE = 0.999
NEAR_BOUNDS = (0.5, 0.8)
#: Share of the bots of a healthy window that are less alike to others than its `crowd`.
CROWD_QUANTILE = 0.95
#: Read by OpenBLAS, which numpy's wheels bring along, when it is loaded.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


class Scale(Frozen):
    """From which similarity (cosine, 0 to 1) on two answers of a class count as alike, learnt from one window."""

    floor: float
    near: float


@dataclass(frozen=True, slots=True)
class Likeness:
    """One aspect of one window.

    Args:
        score: Effective number of different answers, 1 to the window's size.
        mean: Mean squared likeness over all pairs; what the score is made of.
        spread: Standard error that `mean` has by chance, from the answers' own differences.
        near_share: Share of answers with a near neighbour, another bot's.
        crowd: What 95% of the bots stay below in `bots`.
        bots: Bot -> mean squared likeness of its answers to those of the others.
    """

    score: float
    mean: float
    spread: float
    near_share: float
    crowd: float
    bots: dict[int, float]


class Comparison:
    """All answers of a window, each compared with each: O(answers^2), 10 ms for 400, 0.3 s for 2,000.

    Args:
        window: The answers.
    """

    def __init__(self, window: Sequence[Fingerprint]) -> None:
        _load_numpy()
        import numpy as np

        self.size = len(window)
        rows = np.zeros((self.size, BINS), dtype=np.float32)
        for row, answer in zip(rows, window, strict=True):
            row[:] = np.bincount(np.frombuffer(answer.bins, dtype=np.uint16), minlength=BINS)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        self._similar: NDArray[np.float32] = rows @ rows.T
        self._bots = np.array([answer.bot for answer in window])
        prompts = np.array([answer.prompt for answer in window])
        others = self._bots[:, None] != self._bots[None, :]
        same_prompt = prompts[:, None] == prompts[None, :]
        self._pairs: dict[Aspect, NDArray[np.bool_]] = {"across": others & ~same_prompt, "within": others & same_prompt}
        self._counts = {aspect: int(pairs.sum()) // 2 for aspect, pairs in self._pairs.items()}

    def has(self, aspect: Aspect) -> bool:
        """True when there are enough pairs of that aspect to judge it."""
        return self._counts[aspect] >= MIN_PAIRS

    def gauge(self, aspect: Aspect) -> Scale:
        """Learn the scale of a class from this window, taken as healthy."""
        import numpy as np

        floor, near = np.quantile(self._similar[self._pairs[aspect]], (FLOOR_QUANTILES[aspect], NEAR_QUANTILE))
        low, high = NEAR_BOUNDS
        return Scale(floor=round(min(float(floor), MAX_FLOOR), 4), near=round(min(max(float(near), low), high), 4))

    def likeness(self, aspect: Aspect, scale: Scale, *, size: int) -> Likeness:
        """Measure one aspect, and tell its score for a window of `size` answers, whatever the size of this one.

        The score is 1 / mean(Z^2) over all pairs and the diagonal, Z the similarity above the class's floor. With a
        floor of 0 it is the Vendi score of order 2 (Friedman & Dieng 2022; orders: Pasarkar & Dieng 2023), for which
        no eigenvalues are needed: it is 1 / ||K/n||^2. With a higher floor Z need not be positive semi-definite, and
        the score is strictly Leinster & Cobbold's (2012) diversity of order 2 under the similarity Z^2. The floor
        takes out what all healthy answers of a class share (its form, its phrases); without it 10% of collapsed
        answers move the score of a templated class by 5% only.
        """
        import numpy as np

        pairs = self._pairs[aspect]
        squares = self._squares(pairs, scale)
        partners = pairs.sum(axis=1)
        compared = partners > 0
        crowding = squares.sum(axis=1)[compared] / partners[compared]
        mean = float(squares.sum() / max(1, partners.sum()))
        bots = _by_bot(self._bots[compared], crowding)
        near = np.any(pairs & (self._similar >= scale.near), axis=1)[compared]
        return Likeness(
            score=1 / (1 / size + (1 - 1 / size) * mean),
            mean=mean,
            spread=2 * float(crowding.std()) / float(np.sqrt(max(1, compared.sum()))),
            near_share=float(near.mean()) if near.size else 0.0,
            crowd=float(np.quantile(list(bots.values()), CROWD_QUANTILE)) if bots else 0.0,
            bots=bots,
        )

    def among(self, aspect: Aspect, scale: Scale, bots: frozenset[int], answers: Sequence[bool]) -> tuple[float, int]:
        """Return the summed squared likeness among some bots' answers, and the number of their pairs.

        Args:
            aspect: Which pairs.
            scale: The class's scale.
            bots: Whose answers.
            answers: For each answer of the window whether it counts.
        """
        import numpy as np

        chosen = np.isin(self._bots, list(bots)) & np.array(answers, dtype=bool)
        pairs = self._pairs[aspect] & chosen[:, None] & chosen[None, :]
        return float(self._squares(pairs, scale).sum() / 2), int(pairs.sum()) // 2

    def _squares(self, pairs: Any, scale: Scale) -> NDArray[np.float32]:
        import numpy as np

        likeness = np.clip((self._similar - scale.floor) / (1 - scale.floor), 0, 1)
        squares: NDArray[np.float32] = np.where(pairs, likeness * likeness, 0)
        return squares


def _load_numpy() -> None:
    """Import numpy with one BLAS thread.

    Comparing is short work. Further threads spin while they wait for each other, on the cores that tasks need: on a
    busy host a look took twenty times as long. Who has imported numpy before, or set the variable, is not overruled.
    """
    if "numpy" in sys.modules or _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy  # noqa: F401
    finally:
        del os.environ[_BLAS_THREADS]


def _by_bot(bots: Any, crowding: Any) -> dict[int, float]:
    import numpy as np

    names, places = np.unique(bots, return_inverse=True)
    means = np.bincount(places, weights=crowding) / np.bincount(places)
    return {int(name): float(mean) for name, mean in zip(names, means, strict=True)}
