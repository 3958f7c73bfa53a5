"""The core never imports payouts: only its commands do, and none of them before it is called."""

from __future__ import annotations

import subprocess
import sys

from tests.house import ROOT, all_imports


def test_only_the_commands_of_payouts_import_them() -> None:
    wrong = [
        f"{found.module} imports {found.target}"
        for found in all_imports(ROOT)
        if found.target.startswith("fleet.payouts")
        and not found.module.startswith(("fleet.payouts", "fleet.cli.payouts"))
    ]
    assert wrong == []
    assert any(found.target.startswith("fleet.payouts") for found in all_imports(ROOT))


def test_what_signs_lets_nothing_recurse_deeper_than_before() -> None:
    code = "from sys import getrecursionlimit as g; was = g(); import fleet.payouts.keyfiles; print(g() == was)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT).stdout == b"True\n"
