"""One finding of `fleet doctor`: what all its checks return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it is, what to do about it."""

    name: str
    level: Level
    found: str
    advice: str = ""
