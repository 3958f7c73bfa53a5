"""What a key signs for: network, token, decimals and contract, written beside it at its first use, and held to since.

A slip says what its amounts mean, and whoever makes slips could say anything. The file is for who signs alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import Slip
from fleet.quoting import quote

#: What the files of this release say of themselves.
FORMAT = "fleet-pins-1"


class Pin(NamedTuple):
    """What the slips of one network say, each time. Addresses of EVM networks are in small letters."""

    kind: str
    chain_id: int
    token: str
    decimals: int
    multisend: str | None

    @classmethod
    def of(cls, slip: Slip) -> Pin:
        """Return what a slip says."""
        small = str.lower if slip.kind == "evm" else str
        via = None if slip.multisend is None else small(slip.multisend)
        return cls(slip.kind, slip.chain_id, small(slip.token), slip.decimals, via)

    @property
    def told(self) -> str:
        """As people read it."""
        via = f" through contract {self.multisend}" if self.multisend else ""
        return f"token {self.token} of {self.decimals} decimals{via} on {self.kind} network {self.chain_id}"


class Pins:
    """The pins of one key.

    Args:
        key_file: The key's file; the pins are in one beside it.
        file: Instead of that one, where the key is on media that cannot be written. While it is not there, those beside
            the key are gone by.

    Raises:
        PayoutRefused: The file is not as this release writes it.
    """

    def __init__(self, key_file: Path, file: Path | None = None) -> None:
        beside = key_file.with_name(f"{key_file.name}.pins")
        self.path = file or beside
        self._pins = _read(self.path if self.path.exists() else beside)

    def knows(self, slip: Slip) -> bool:
        """True when slips of this network have been signed, and all said what this one says."""
        return Pin.of(slip) in self._pins

    def check(self, slip: Slip, *, is_new: bool) -> None:
        """Refuse a slip that says something else than those before.

        Args:
            slip: Which.
            is_new: Somebody has looked, and says that it is right.

        Raises:
            PayoutRefused: With what is pinned, and what the slip says.
        """
        if self._pins and not is_new and not self.knows(slip):
            raise PayoutRefused(
                f"expected {'; or '.join(one.told for one in self._pins)}, as {self.path} says, got a slip with "
                f"{Pin.of(slip).told}: find out who changed it; if that is right, say --pin"
            )

    def add(self, slip: Slip) -> bool:
        """Pin what a slip says instead of what was pinned for its network; return whether that is news.

        Raises:
            PayoutRefused: The file cannot be written.
        """
        if self.knows(slip):
            return False
        new = Pin.of(slip)
        self._pins = (*(one for one in self._pins if (one.kind, one.chain_id) != (new.kind, new.chain_id)), new)
        try:
            self._write()
        except OSError as error:
            raise PayoutRefused(
                f"expected to write {self.path}, which keeps what the key signs for, got {type(error).__name__}: "
                "name a file that can be written by --pins, and keep it for the next slips"
            ) from error
        return True

    def _write(self) -> None:
        beside = self.path.with_name(f".{self.path.name}.anew")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "pins": [one._asdict() for one in self._pins]}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)


def _read(path: Path) -> Sequence[Pin]:
    if not path.exists():
        return ()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(data["format"])
        return tuple(Pin(**one) for one in data["pins"])
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise PayoutRefused(
            f"expected what a key signs for ({FORMAT}) in {path}, got {quote(str(error))}: find out who changed it; "
            "without that file the next slip is taken as the first one"
        ) from error
