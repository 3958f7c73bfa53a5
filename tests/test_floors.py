"""The floors of the house: who may import whom, checked on the source of every module.

The tables below are the rules. Also here: `import fleet` stays light, and no file outgrows its room.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.house import ROOT, Import, all_imports, circles, graph_of, modules_of, sources

DEPARTMENTS = tuple(
    f"fleet.{name}"
    for name in (
        "limiter",
        "roster",
        "diversity",
        "answers",
        "earnings",
        "economy",
        "jobs",
        "resilience",
        "rollouts",
        "scaling",
        "schedules",
        "signals",
        "vault",
    )
)

#: From the ground up. A room may import itself and the floors below its own, not its neighbours.
FLOORS: tuple[tuple[str, ...], ...] = (
    # The words: stdlib and pydantic only.
    ("fleet.quoting", "fleet.rates", "fleet.open_files", "fleet.frozen", "fleet.money"),
    ("fleet.usage", "fleet.conversation", "fleet.lessons", "fleet.waits"),
    (
        "fleet.faults",
        "fleet.bounds",
        "fleet.patterns",
        "fleet.list_prices",
        "fleet.entries",
        "fleet.batches",
        "fleet.cached_lengths",
    ),
    ("fleet.errors",),
    ("fleet.spellings",),
    ("fleet.asking",),
    ("fleet.schema_rules", "fleet.config", "fleet.handover"),
    ("fleet.schema",),
    ("fleet.models",),
    ("fleet.grants",),
    ("fleet.outcome",),
    # Redis; and the bots, who never hear of it.
    ("fleet.store", "fleet.workers"),
    DEPARTMENTS,
    # Celery, in rooms along a task's road.
    ("fleet.engine.messages", "fleet.engine.core_dumps"),
    ("fleet.engine.transport", "fleet.engine.telemetry"),
    ("fleet.engine.admission", "fleet.engine.outcomes", "fleet.engine.celery_options", "fleet.engine.file_room"),
    ("fleet.engine.settings",),
    ("fleet.engine.answers", "fleet.engine.local_simulator", "fleet.engine.app"),
    ("fleet.engine.process", "fleet.engine.asking", "fleet.engine.jobs"),
    ("fleet.engine.operations",),
    ("fleet.engine.tasks",),
    # What is paid: an extra, which only commands import.
    ("fleet.payouts",),
    # What people see.
    ("fleet.dashboard",),
    (
        "fleet.cli.operator",
        "fleet.cli.terminal",
    ),
    (
        "fleet.cli.figures",
        "fleet.cli.finite",
        "fleet.cli.spans",
        "fleet.cli.exit_codes",
        "fleet.cli.stop_signals",
        "fleet.cli.shadow",
    ),
    ("fleet.cli.wrong_use",),
    ("fleet.cli.main", "fleet.cli.run", "fleet.cli.stack", "fleet.cli.operate", "fleet.cli.setup"),
    ("fleet.cli.money", "fleet.cli.keys", "fleet.cli.demo", "fleet.cli.rollouts"),
    ("fleet.cli.payouts",),
    # The door of `celery -A fleet`, and the lazy one of `import fleet`: nothing below may enter by them.
    ("fleet.door",),
    ("fleet",),
)
WORDS = tuple(part for floor in FLOORS[:11] for part in floor)

#: Room -> lower floors that are closed to it all the same.
CLOSED: dict[str, tuple[str, ...]] = {
    part: ("fleet.workers",) for floor in FLOORS for part in floor if part != "fleet.workers"
}

#: Module -> what it may import all the same, and why.
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "fleet.engine.process.assembly": ("fleet.workers", "fills the ports of the data plane: where both halves meet"),
    "fleet.engine.process.wiring": ("fleet.workers.loops", "starts and stops the loop that all of it runs on"),
    "fleet.engine.process.ladders": (
        "fleet.workers",
        "a part of it: connects the APIs of the pools' ladders",
    ),
    "fleet.engine.operations.ladders": ("fleet.workers.rungs", "tells where calls go by the rule that workers go by"),
    "fleet.cli.run.weighing": ("fleet.workers", "weighs a task as its bot will, with the same counts and cuts"),
    "fleet.cli.operate.contexts": ("fleet.workers.context", "counts a document's tokens as bots do"),
    "fleet.cli.money.whose": ("fleet.workers", "reads keys as a worker does: a ledger shows the label of each"),
    "fleet.cli.setup.user_code": ("fleet.workers", "loads users' code as a worker does, in a process of its own"),
    "fleet.cli.setup.findings": ("fleet.workers.bot.quiet", "tells by which variables workers let frameworks report"),
    "fleet.cli.setup.apis": ("fleet.workers", "asks APIs as a worker does: nobody else knows their wires"),
    "fleet.cli.setup.api_checks": ("fleet.workers.providers.listing", "judges what came of that"),
    "fleet.cli.keys.asking": ("fleet.workers.providers.listing", "asks an API for its models with a key"),
    "fleet.cli.stack.simulator": ("fleet.workers.simulator", "a program of its own; this is only its name"),
}

#: Part -> third-party packages it must not import. The words are told what they may import instead.
FOREIGN: dict[str, tuple[str, ...]] = {
    "fleet.workers": ("redis", "celery", "kombu"),
    **dict.fromkeys(("fleet.store", *DEPARTMENTS), ("celery", "kombu", "flower")),
}
#: The only third-party packages of the words.
FOREIGN_TO_WORDS = (
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "jsonschema",
    "referencing",
    "genai_prices",
    "cronsim",
)

#: Packages that `import fleet` must not pull in: each costs 0.1 to 0.5 s.
HEAVY = ("celery", "kombu", "redis", "pydantic", "aiohttp", "flower")


#: Lines of a source file at most: more is a sign to split it.
MAX_LINES = 400
#: Modules and scripts of a folder at most: about a dozen is the aim, the limiter has more.
MAX_FILES = 25
#: Arguments of a function at most, `self` not counted: six are the aim.
MAX_ARGUMENTS = 11


def within(module: str, parts: tuple[str, ...]) -> bool:
    """True when `module` is one of `parts` or lies inside one. The door `fleet` has no inside."""
    return any(module == part or (part != "fleet" and module.startswith(f"{part}.")) for part in parts)


def floor_of(module: str) -> tuple[int, str] | None:
    """Return the floor and the room of a module; None when the table does not know it."""
    return next(
        ((number, part) for number, floor in enumerate(FLOORS) for part in floor if within(module, (part,))), None
    )


def objection(found: Import) -> str | None:
    """Return what is wrong with one import, or None."""
    if found.module in _PACKAGES:
        return None if found.target == "__future__" else f"{found.module} is a folder: it imports nothing"
    place = floor_of(found.module)
    if place is None:
        return f"{found.module} is on no floor: add its room to FLOORS in tests/test_floors.py"
    number, room = place
    if found.target.partition(".")[0] == "fleet":
        extra = EXCEPTIONS.get(found.module, (room, ""))[0]
        below = tuple(part for floor in FLOORS[:number] for part in floor if part not in CLOSED.get(room, ()))
        allowed = ("itself", "fleet.workers") if room == "fleet.workers" else ("itself", "the floors below")
        below = WORDS if room == "fleet.workers" else below
        wrong = not within(found.target, (room, extra, *below))
    elif room in WORDS:
        allowed = FOREIGN_TO_WORDS
        wrong = not within(found.target, allowed) and found.target.partition(".")[0] not in sys.stdlib_module_names
    else:
        banned = FOREIGN.get(room, ())
        allowed = tuple(f"anything but {name}" for name in banned)
        wrong = within(found.target, banned)
    return f"{found.module} imports {found.target}; allowed for {room}: {', '.join(allowed)}" if wrong else None


#: Folders whose `__init__` is empty: their rooms stand in the table.
_PACKAGES = ("fleet.engine", "fleet.cli")


def violations(root: Path) -> list[str]:
    """Return one line per import that breaks a floor: file:line, what it imports, what is allowed."""
    found = ((item, objection(item)) for item in all_imports(root))
    return [f"{item.path.relative_to(root)}:{item.line}: {wrong}" for item, wrong in found if wrong is not None]


def test_every_module_imports_only_from_floors_below_its_own() -> None:
    assert len(modules_of(ROOT)) > 10, "expected the modules of fleet/ and workers/, found next to none"
    assert not (lines := violations(ROOT)), "\n" + "\n".join(lines)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert not (found := circles(graph_of(ROOT))), f"expected no circle, got {found}"


def test_every_room_of_the_table_exists() -> None:
    known = modules_of(ROOT)
    assert not [part for floor in FLOORS for part in floor if not any(within(name, (part,)) for name in known)]


def test_every_exception_from_the_floors_is_still_needed() -> None:
    modules, found = modules_of(ROOT), all_imports(ROOT)
    for module, (extra, reason) in EXCEPTIONS.items():
        assert module in modules, f"{module} is gone: remove its exception ({reason})"
        used = any(item.module == module and within(item.target, (extra,)) for item in found)
        assert used, f"{module} no longer imports {extra}: remove its exception ({reason})"


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fleet/models.py", "import redis"),
        ("fleet/models.py", "from fleet.store import keys"),
        ("fleet/errors/waiting.py", "if TYPE_CHECKING:\n    from fleet.models import Usage"),
        ("fleet/store/client.py", "from ..limiter import Limiter"),
        ("fleet/store/client.py", "def later():\n    import celery.app"),
        ("fleet/limiter/__init__.py", "from fleet.roster import Roster"),
        ("fleet/limiter/__init__.py", "from fleet import submit_task"),
        ("fleet/limiter/__init__.py", "from fleet.workers.ports import Limiter"),
        ("fleet/roster/__init__.py", "if TYPE_CHECKING:\n    from fleet.engine import app"),
        ("fleet/engine/__init__.py", "from fleet.engine.app import app"),
        ("fleet/engine/app.py", "from fleet.engine import tasks"),
        ("fleet/engine/app.py", "from fleet import dashboard"),
        ("fleet/engine/app.py", "from fleet.cli.main import main"),
        ("fleet/engine/messages/queues.py", "from fleet.engine.transport import leases"),
        ("fleet/engine/process/data_plane.py", "import fleet.workers.agent"),
        ("fleet/engine/outcomes/results.py", "from fleet.engine.answers import opinions"),
        ("fleet/engine/tasks.py", "from fleet.door import app"),
        ("fleet/dashboard/page.py", "import fleet.cli.main"),
        ("fleet/cli/run/job.py", "from fleet.cli.operate import top"),
        ("fleet/cli/operate/top.py", "from fleet.cli.demo import board"),
        ("fleet/attic.py", "import json"),
        ("workers/agent.py", "from redis.asyncio import Redis"),
        ("workers/agent.py", "from fleet.limiter import Limiter"),
        ("workers/agent.py", "import fleet.economy.prices"),
    ],
)
def test_an_import_from_a_wrong_floor_is_found_and_named(tmp_path: Path, file: str, source: str) -> None:
    for module, path in modules_of(ROOT).items():
        if module not in WORDS:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch()
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source, encoding="utf-8")
    (line,) = violations(tmp_path)
    assert line.startswith(f"{file}:{len(source.splitlines())}: ")


def test_importing_fleet_or_a_department_builds_no_celery_app() -> None:
    assert not _loaded_by("fleet") & set(HEAVY)
    assert not _loaded_by(*DEPARTMENTS) & {"celery", "kombu", "flower"}


def test_importing_the_data_plane_loads_neither_redis_nor_celery() -> None:
    modules = [name for name in modules_of(ROOT) if within(name, ("fleet.workers",)) and not name.endswith("__main__")]
    assert not _loaded_by(*modules) & {"celery", "kombu", "redis"}


def _loaded_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*sources(ROOT, "*.py"), *sources(ROOT, "*.lua")]
    counts = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    too_long = {name: lines for name, lines in counts.items() if lines > MAX_LINES}
    assert not too_long, f"expected at most {MAX_LINES} lines a file, split {too_long}"


def test_no_folder_holds_more_files_than_it_did() -> None:
    files = [path for pattern in ("*.py", "*.lua") for path in sources(ROOT, pattern)]
    most = Counter(path.parent.relative_to(ROOT) for path in files).most_common(1)
    assert most[0][1] == MAX_FILES, f"expected {MAX_FILES} at most and by now, got {most}"


def test_no_function_takes_more_arguments_than_it_did() -> None:
    counts = {
        f"{path.relative_to(ROOT)}:{node.lineno}": len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        - (bool(node.args.args) and node.args.args[0].arg in ("self", "cls"))
        for path in sources(ROOT, "*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    most = max(counts.items(), key=lambda item: item[1])
    assert most[1] == MAX_ARGUMENTS, f"expected {MAX_ARGUMENTS} at most and by now, got {most}"
