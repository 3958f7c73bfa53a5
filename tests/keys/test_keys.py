"""Canaries through a whole fleet, in the small size. All rows: `python -m tests.keys --check`."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tests.every import every
from tests.keys.canaries import Canary, search
from tests.keys.figures import Row
from tests.keys.rows import ROWS

KEY = Canary("key", 'first8ch+middle/of"it=and\\last8chr')
#: Rows whose small size other tests play: `tests/engine/process/test_keys.py`, `test_forgetting.py`, `test_scopes.py`
#: `tests/e2e/test_delegation.py` and `tests/signals/unusual`.
ELSEWHERE = {
    "rotation",
    "rotation_vault",
    "rotation_file",
    "revoke",
    "away",
    "forgotten",
    "widened",
    "unsigned",
    "alarm",
}
SMALL = [row for row in ROWS if row.name not in ELSEWHERE]


@pytest.mark.parametrize("row", SMALL, ids=[row.name for row in SMALL])
def test_it_is_as_promised(row: Row) -> None:
    figures = row.apart("small")
    assert every(figure.holds for figure in figures), [(str(one), one.notes) for one in figures]


@pytest.mark.parametrize(
    "leak",
    [
        KEY.value, json.dumps(KEY.value), json.dumps(json.dumps({"k": KEY.value})), quote(KEY.value, safe=""),
        repr(KEY.value), KEY.value.encode().hex(), *(
            base64.b64encode(b"x" * shift + KEY.value.encode() + b"tail").decode() for shift in range(3)
        ),
        base64.urlsafe_b64encode(b"Bearer " + KEY.value.encode()).decode(), "first8ch****", "...last8chr",
        base64.b64encode(b"ab first8ch...").decode(),
    ],
)  # fmt: skip
def test_a_leak_is_found_in_whatever_form(leak: str) -> None:
    (find,) = search([KEY], "a log", f"2026 INFO {leak} end".encode())
    assert find.canary == "key" and KEY.value not in str(find)
    assert not list(search([KEY], "a log", leak.encode(), allowed=["key"]))


def test_what_is_no_leak_is_not_found() -> None:
    assert not list(search([KEY], "a log", b"first8c last8ch middle/of it ...r" + base64.b64encode(b"nothing of it")))
