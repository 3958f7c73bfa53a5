"""Rows of exports, from JSON or CSV: a value is read by its name, or the file is refused with place and reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, cast

from fleet.economy.exports.export import UnreadableExport
from fleet.money import PICOS
from fleet.quoting import quote

#: Largest number that is believed: more tokens, calls or dollars than any period can have.
MOST = 10**18
#: Decimals that an amount may have: beyond it is no money.
MOST_DECIMALS = 40


def objects(value: object, place: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none when it is empty or is not there.

    Raises:
        UnreadableExport: It is no list, or something in it is no object.
    """
    found = value or []
    wrong = [one for one in found if not isinstance(one, Mapping)] if isinstance(found, list) else [found]
    if wrong:
        raise UnreadableExport(f"{place}: expected a list of objects, got {quote(wrong[0])}; export the file anew")
    return cast(list[Mapping[str, Any]], found)


class ExportRow:
    """One row.

    Args:
        values: By column.
        place: Where it stands, for people: `line 3`.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self._values = values
        self._place = place

    def has(self, name: str) -> bool:
        """True when there is a value."""
        return self._values.get(name) not in (None, "")

    def text(self, *names: str) -> str:
        """Return the first text that is there; "" when none is."""
        for name in names:
            if self.has(name):
                return str(self._values[name]).strip().encode("utf-8", "replace").decode()
        return ""

    def inner(self, name: str) -> ExportRow:
        """Return the object in a field; an empty row when there is none."""
        found = self._values.get(name) or {}
        if not isinstance(found, Mapping):
            raise self.wrong(name, "an object")
        return ExportRow(found, f"{self._place}, {name}")

    def count(self, name: str) -> int:
        """Return a count; 0 when there is none."""
        if not self.has(name):
            return 0
        number = self._number(name)
        if number != number.to_integral_value() or number < 0:
            raise self.wrong(name, "a whole number, 0 or more")
        return int(number)

    def picos(self, name: str, *, per_dollar: int = 1) -> int:
        """Return an amount in 10^-12 US dollars, which may be negative: a credit.

        Args:
            name: Of the column.
            per_dollar: In how many of its unit a dollar is: 100 for cents.
        """
        exact = self._number(name) * PICOS / per_dollar
        return int(exact.to_integral_value(ROUND_HALF_UP))

    def rounding_picos(self, name: str) -> int:
        """Return by how much an amount may be off: half of its last decimal place, at most half a cent."""
        exponent = self._number(name).as_tuple().exponent
        last = Decimal(1).scaleb(exponent if isinstance(exponent, int) else 0)
        return min(int(last * PICOS / 2), PICOS // 200)

    def time(self, name: str) -> float:
        """Return a time in Unix seconds: a number, a date or an RFC 3339 time; without a zone it is UTC."""
        value = self._values.get(name)
        try:
            if isinstance(value, int | Decimal) or str(value).strip().isdigit():
                seconds = float(str(value))
            else:
                read = datetime.fromisoformat(str(value).strip())
                seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise self.wrong(name, "a date, a time as 2026-11-29T12:00:00Z, or Unix seconds") from None
        if not 0 <= seconds < 10**11:
            raise self.wrong(name, "a time after 1970, in seconds")
        return seconds

    def wrong(self, name: str, expected: str) -> UnreadableExport:
        """Return the error of a value."""
        return UnreadableExport(
            f"{self._place}: {name}: expected {expected}, got {quote(self._values.get(name))}; export the file anew"
        )

    def _number(self, name: str) -> Decimal:
        value = self._values.get(name)
        try:
            number = value if isinstance(value, Decimal) else Decimal(str(value).strip().replace(",", ""))
        except InvalidOperation:
            raise self.wrong(name, "a number") from None
        exponent = number.as_tuple().exponent
        if isinstance(value, bool) or not isinstance(exponent, int) or abs(number) > MOST or exponent < -MOST_DECIMALS:
            raise self.wrong(name, "a number that can be")
        return number
