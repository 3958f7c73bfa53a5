"""The release as a user gets it: built, installed without the clone, and run among files with unlucky names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.dashboard.flower_process import Flower
from tests.stack_processes import OPEN, end_all_of

REPO = Path(__file__).parents[2]
#: Seconds for one command on a busy machine.
SLOW_S = 120.0
#: What a clone holds beside its sources; a release is built from the rest.
NOT_SOURCES = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
#: Names that modules of ours, of our dependencies or of the standard library have; each says when it is run.
UNLUCKY = ("workers.py", "redis.py", "celery.py", "flower.py", "queue.py", "secrets.py")
TELLTALE = "from pathlib import Path\nPath(__file__).with_name(f'ran-{Path(__file__).stem}').touch()\n"
BOT = """\
import workers


def shout(task, bot):
    return f"{workers.GREETING} {task.prompt}".upper()


def is_loud(task, answer):
    return answer.isupper()
"""
CONFIG = """\
[flower]
port = 0

[pools.loud]
bots = 2
function = "my_bots:shout"
validator = "my_bots:is_loud"

[pools.plain]
bots = 2
"""


@dataclass(frozen=True)
class Release:
    """What `python -m build` made."""

    wheel: Path
    source: Path


@dataclass(frozen=True)
class User:
    """Somebody who has installed the wheel and works in a folder of his own."""

    folder: Path
    programs: Path

    def run(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.folder)}
        env |= {"FLEET_HOME": str(self.folder / ".fleet"), **dict([OPEN])}
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=SLOW_S, check=False
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    @property
    def has_run(self) -> list[str]:
        return [path.name for path in self.folder.glob("ran-*")]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(REPO, folder / "clone", symlinks=True, ignore=NOT_SOURCES)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), "clone"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SLOW_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (source,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return Release(wheel, source)


@pytest.fixture(scope="module")
def programs(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment with the wheel in it; what Fleet needs is lent by ours."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "lent.pth").write_text(
        sysconfig.get_path("purelib") + "\n", encoding="utf-8"
    )  # its own .pth files stay out
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*command, "--no-compile", str(release.wheel)], check=True, timeout=SLOW_S)
    (home / "bin" / "celery").write_text(
        f"#!{python}\nimport sys\nfrom celery.__main__ import main\nsys.exit(main())\n", encoding="utf-8"
    )
    (home / "bin" / "celery").chmod(0o755)
    return home / "bin"


@pytest.fixture
def user(programs: Path, tmp_path: Path) -> Iterator[User]:
    folder = tmp_path / "work"
    folder.mkdir()
    yield User(folder, programs)
    end_all_of(folder)


def test_the_wheel_holds_every_file_of_the_package_and_claims_no_other_name(release: Release) -> None:
    held = {name for name in ZipFile(release.wheel).namelist() if ".dist-info/" not in name}
    homes = {"fleet": REPO / "fleet", "fleet/workers": REPO / "workers"}
    wanted = {
        f"{home}/{path.relative_to(folder)}"
        for home, folder in homes.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted


def test_the_metadata_are_those_of_pyproject(release: Release) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (name,) = (name for name in ZipFile(release.wheel).namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(ZipFile(release.wheel).read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == ("celery-fleet", project["version"])
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_source_archive_holds_licence_docs_and_tests(release: Release) -> None:
    with tarfile.open(release.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "README.md", "docs/redis.md", "tests/conftest.py", "workers/agent.py"} <= names
    assert not [name for name in names if name.startswith((".", "build/")) or "__pycache__" in name]


def test_the_stack_runs_among_files_with_unlucky_names_and_finds_the_users_own_modules(user: User) -> None:
    for name in UNLUCKY:
        user.write(name, TELLTALE)
    user.write("workers.py", TELLTALE + "GREETING = 'hello'\n")
    user.write("my_bots.py", BOT)
    user.write("fleet.toml", CONFIG)
    up = user.run("fleet", "up", "-d")
    assert user.run("fleet", "submit", "What is 6 * 7?", "--pool", "plain").stdout == "42\n"
    assert user.run("fleet", "submit", "world", "--pool", "loud").stdout == "HELLO WORLD\n"
    assert fleet_tab(user, up.stdout) == 200
    assert "stopped w1, w2, flower, redis, simulator" in user.run("fleet", "down").stderr
    assert user.has_run == ["ran-workers"]  # by the user's own bots, which import it


def fleet_tab(user: User, table: str) -> int:
    """Return the status of the Fleet tab of the Flower that `fleet up` lists."""
    found = re.search(r"http://127\.0\.0\.1:(\d+)", table)
    assert found is not None, table
    word = (user.folder / ".fleet" / "flower.password").read_text(encoding="utf-8").strip()
    status, body = Flower(user.folder, int(found[1])).get("/fleet", f"fleet:{word}")
    assert "Completions" in body
    return status


def test_the_demo_runs_beside_a_users_own_workers_module(user: User) -> None:
    for name in UNLUCKY:
        user.write(name, TELLTALE)
    done = user.run("fleet", "demo", "--tasks", "40")
    assert "40 of 40 done" in done.stderr
    assert user.has_run == []


def test_the_version_is_the_installed_ones(user: User, release: Release) -> None:
    version = release.wheel.name.split("-")[1]
    assert user.run("fleet", "--version").stdout == f"fleet, version {version}\n"
