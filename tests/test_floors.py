"""The floors of the house: who may import whom, checked on the source of every module.

The tables below are the rules. Also here: `import fleet` stays light, files stay short, and every Lua script opens
with its contract.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

WORDS = tuple(
    f"fleet.{name}" for name in ("quoting", "faults", "rates", "errors", "schema", "models", "outcome", "config")
)
STORE = ("fleet.store",)
DEPARTMENTS = tuple(
    f"fleet.{name}" for name in ("limiter", "roster", "diversity", "vault", "economy", "resilience", "signals")
)
BELOW_ENGINE = (*WORDS, *STORE, *DEPARTMENTS)

#: Part of the house -> the other parts it may import. A part may always import itself.
FLOORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WORDS, WORDS),
    **dict.fromkeys(STORE, WORDS),
    **dict.fromkeys(DEPARTMENTS, (*WORDS, *STORE)),
    "fleet.engine": BELOW_ENGINE,
    "fleet.dashboard": (*BELOW_ENGINE, "fleet.engine"),
    "fleet.cli": (*BELOW_ENGINE, "fleet.engine", "fleet.dashboard"),  # the roof: it starts the dashboard
    "fleet": (*BELOW_ENGINE, "fleet.engine"),  # the lazy door: hands out names, nothing below may enter by it
    "fleet.workers": WORDS,
}

#: Module -> what it may import on top of its floor, and why.
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "fleet.engine.process.wiring": (
        "fleet.workers",
        "fills the ports of the data plane: where both halves meet",
    ),
    "fleet.engine.app": ("fleet.dashboard", "Flower's defaults must be laid before `celery -A fleet flower` reads any"),
    "fleet.cli.stack.simulator": (
        "fleet.workers.simulator",
        "a program of its own; this is only its name",
    ),
}

#: Part -> third-party packages it must not import. The words are told what they may import instead.
FOREIGN: dict[str, tuple[str, ...]] = {
    "fleet.workers": ("redis", "celery", "kombu"),
    **dict.fromkeys((*STORE, *DEPARTMENTS), ("celery", "kombu", "flower")),
}
#: The only third-party packages of the words.
FOREIGN_TO_WORDS = ("pydantic", "pydantic_settings", "jsonschema", "referencing")

#: Packages that `import fleet` must not pull in: each costs 0.1 to 0.5 s.
HEAVY = ("celery", "kombu", "redis", "pydantic", "aiohttp", "flower")

#: Lines of a source file at most: more is a sign to split it.
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported module, as written in a source file."""

    path: Path
    line: int
    module: str
    target: str


def modules_of(root: Path) -> dict[str, Path]:
    """Return dotted name -> file of every module: `fleet/`, and `workers/` as `fleet.workers`."""
    files = [path for top in ("fleet", "workers") for path in (root / top).rglob("*.py")]
    return {_dotted(path.relative_to(root)): path for path in files}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    parts = ("fleet", *parts) if parts[0] == "workers" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Yield every import of a module, also those inside functions and under TYPE_CHECKING."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, module, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(path, node.lineno, module, full if full in known else base)


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def within(module: str, parts: tuple[str, ...]) -> bool:
    """True when `module` is one of `parts` or lies inside one. The door `fleet` has no inside."""
    return any(module == part or (part != "fleet" and module.startswith(f"{part}.")) for part in parts)


def part_of(module: str) -> str | None:
    """Return the part of the house that a module belongs to, or None when the table does not know it."""
    return next((part for part in FLOORS if within(module, (part,))), None)


def objection(found: Import) -> str | None:
    """Return what is wrong with one import, or None."""
    part = part_of(found.module)
    if part is None:
        return f"{found.module} is on no floor: add its part to FLOORS in tests/test_floors.py"
    extra = EXCEPTIONS.get(found.module, (part, ""))[0]
    if found.target.partition(".")[0] == "fleet":
        allowed = (part, *FLOORS[part], extra)
        wrong = not within(found.target, allowed)
    elif part in WORDS:
        allowed = FOREIGN_TO_WORDS
        wrong = not within(found.target, allowed) and found.target.partition(".")[0] not in sys.stdlib_module_names
    else:
        banned = FOREIGN.get(part, ())
        allowed = tuple(f"anything but {name}" for name in banned)
        wrong = within(found.target, banned)
    if not wrong:
        return None
    return f"{found.module} imports {found.target}; allowed for {part}: {', '.join(dict.fromkeys(allowed))}"


def violations(root: Path) -> list[str]:
    """Return one line per import that breaks a floor: file:line, what it imports, what is allowed."""
    modules = modules_of(root)
    found = [item for module, path in modules.items() for item in imports_of(module, path, set(modules))]
    return [
        f"{item.path.relative_to(root)}:{item.line}: {wrong}"
        for item in found
        if (wrong := objection(item)) is not None
    ]


def test_every_module_imports_only_from_floors_below_its_own() -> None:
    assert len(modules_of(ROOT)) > 10, "expected the modules of fleet/ and workers/, found next to none"
    assert not (lines := violations(ROOT)), "\n" + "\n".join(lines)


def test_every_exception_from_the_floors_is_still_needed() -> None:
    modules = modules_of(ROOT)
    for module, (extra, reason) in EXCEPTIONS.items():
        assert module in modules, f"{module} is gone: remove its exception ({reason})"
        targets = [item.target for item in imports_of(module, modules[module], set(modules))]
        used = any(within(target, (extra,)) for target in targets)
        assert used, f"{module} no longer imports {extra}: remove its exception ({reason})"


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fleet/models.py", "import redis"),
        ("fleet/models.py", "from fleet.store import keys"),
        ("fleet/store/client.py", "from ..limiter import Limiter"),
        ("fleet/store/client.py", "def later():\n    import celery.app"),
        ("fleet/limiter/__init__.py", "from fleet.roster import Roster"),
        ("fleet/limiter/__init__.py", "from fleet import submit_task"),
        ("fleet/limiter/__init__.py", "from fleet.workers.ports import Limiter"),
        ("fleet/roster/__init__.py", "if TYPE_CHECKING:\n    from fleet.engine import app"),
        ("fleet/engine/app.py", "from fleet import cli"),
        ("fleet/engine/app.py", "import fleet.workers.agent"),
        ("fleet/dashboard/page.py", "import fleet.cli.main"),
        ("fleet/attic.py", "import json"),
        ("workers/agent.py", "from redis.asyncio import Redis"),
        ("workers/agent.py", "from fleet.limiter import Limiter"),
        ("workers/agent.py", "import fleet.economy.prices"),
    ],
)
def test_an_import_from_a_wrong_floor_is_found_and_named(tmp_path: Path, file: str, source: str) -> None:
    for part in FLOORS.keys() - set(WORDS):
        folder = tmp_path / ("workers" if part == "fleet.workers" else part.replace(".", "/"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    (tmp_path / file).write_text(source, encoding="utf-8")
    (line,) = violations(tmp_path)
    assert line.startswith(f"{file}:{len(source.splitlines())}: ")


def test_importing_fleet_or_a_department_builds_no_celery_app() -> None:
    assert not _loaded_by("fleet") & set(HEAVY)
    departments = [name for name in DEPARTMENTS if (ROOT / name.replace(".", "/")).is_dir()]
    assert not _loaded_by(*departments) & {"celery", "kombu", "flower"}


def test_importing_the_data_plane_loads_neither_redis_nor_celery() -> None:
    modules = [name for name in modules_of(ROOT) if within(name, ("fleet.workers",)) and not name.endswith("__main__")]
    assert not _loaded_by(*modules) & {"celery", "kombu", "redis"}


def _loaded_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_lua_script_opens_with_its_keys_arguments_and_reply() -> None:
    scripts = _sources("*.lua")
    assert scripts, "expected Lua scripts under fleet/, found none"
    for path in scripts:
        header = _header(path).lower()
        missing = [word for word in ("keys", "argv", "reply") if not re.search(rf"\b{word}\b", header)]
        assert not missing, f"{path.relative_to(ROOT)}: expected a comment on top that tells {missing}"


def _header(path: Path) -> str:
    """Return the comment lines that a Lua file opens with."""
    return "\n".join(takewhile(lambda line: line.startswith("--"), path.read_text(encoding="utf-8").splitlines()))


def test_no_python_string_holds_lua() -> None:
    lua = re.compile(r"redis\.p?call\(")
    inside = [str(path.relative_to(ROOT)) for path in _sources("*.py") if lua.search(path.read_text(encoding="utf-8"))]
    assert not inside, f"expected Lua in .lua files only, found some in {inside}"


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*_sources("*.py"), *_sources("*.lua")]
    counts = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    too_long = {name: lines for name, lines in counts.items() if lines > MAX_LINES}
    assert not too_long, f"expected at most {MAX_LINES} lines a file, split {too_long}"


def _sources(pattern: str) -> list[Path]:
    return [path for top in ("fleet", "workers") for path in sorted((ROOT / top).rglob(pattern))]
