"""A foreign `fleet` in the working folder is refused before anything starts, and is never run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.cli.shadow import OURS, shadow

#: What a test's foreign module does when somebody runs it.
TELLTALE = "from pathlib import Path\nPath(__file__).with_name('was-run').touch()\n"


def fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command, whose import path does not begin with the working folder."""
    command = [sys.executable, "-P", "-m", "fleet.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["fleet.py", "fleet/__init__.py"])
@pytest.mark.parametrize("command", [("up",), ("up", "-d"), ("demo",)])
def test_a_foreign_fleet_is_named_with_what_to_do_and_not_run(
    name: str, command: tuple[str, ...], tmp_path: Path, fleet_home: Path
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(TELLTALE, encoding="utf-8")
    done = fleet(*command)
    found = tmp_path / name.partition("/")[0]
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"fleet: expected no module `fleet` but ours in the working folder, got {found}: `celery -A fleet` would run "
        f"it instead of {OURS}; rename it, or work in another folder\n"
    )
    assert not file.with_name("was-run").exists()
    assert not fleet_home.exists()


def test_a_folder_without_an_init_file_is_no_package_and_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    assert shadow() is None


def test_a_clone_of_ours_is_no_foreign_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OURS.parent)
    assert shadow() is None


def test_an_empty_folder_called_fleet_does_not_hide_ours(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()  # the folder above a clone has one
    code = "import fleet.errors; print(fleet.errors.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()).resolve() == OURS / "errors" / "__init__.py", done.stderr
