"""The first release, 0.2.0, built from the history of this checkout, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
#: The commit that 0.2.0 was built from.
COMMIT = "def8bbf8"
#: Seconds for one command on a busy machine.
SLOW_S = 120.0


def install_first(folder: Path) -> Path:
    """Return the Python of an environment with 0.2.0; what it needs beside itself is lent by ours.

    Skips the test where the history ends before it, as in a shallow clone.
    """
    known = subprocess.run(
        ["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"], cwd=REPO, capture_output=True, check=False
    )
    if known.returncode:
        pytest.skip(f"the first release ({COMMIT}) is not in this checkout")
    source, home = folder / "source", folder / "environment"
    source.mkdir()
    archive = subprocess.run(["git", "archive", COMMIT], cwd=REPO, capture_output=True, check=True, timeout=SLOW_S)
    subprocess.run(["tar", "x"], cwd=source, input=archive.stdout, check=True, timeout=SLOW_S)
    offline = ["--no-deps", "--no-index", "-qq"]
    build = [sys.executable, "-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", "dist", "./source"]
    subprocess.run(build, cwd=folder, check=True, timeout=SLOW_S, capture_output=True)
    venv.create(home, with_pip=False, symlinks=True)
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (wheel,) = (folder / "dist").glob("celery_fleet-0.2.0-*.whl")
    put = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", *offline, "--no-compile"]
    subprocess.run([*put, str(wheel)], check=True, timeout=SLOW_S, capture_output=True)
    return home / "bin" / "python"
