"""One finding of `fleet doctor`: what all its checks return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.config import Settings

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it is, what to do about it."""

    name: str
    level: Level
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """It is as it should be."""
    return Check(name, "ok", found)


def warn(name: str, found: str, advice: str) -> Check:
    """Something will be slower, dearer or blinder than it needs to be."""
    return Check(name, "warn", found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """Tasks, money or a secret can be lost as things stand."""
    return Check(name, "fail", found, advice)


def place_of(pool: str, number: int, settings: Settings) -> str:
    """Return what the checks call one of a pool's models; the first is the pool itself."""
    place = settings.place_of(pool, number)
    return f"{pool}.{place}" if place else pool
