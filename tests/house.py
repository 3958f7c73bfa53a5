"""The house as its sources tell it: modules, imports, rooms, floors. The rules on it: `test_floors.py`.

`python -m tests.house [ROOT]` prints the figures of a checkout.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
#: Folders whose modules are the house. `workers/` is installed as `fleet.workers`.
TOPS = ("fleet", "workers")

#: Module -> modules that it imports.
Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Import:
    """One imported module, as written in a source file."""

    path: Path
    line: int
    module: str
    target: str


def sources(root: Path, pattern: str) -> list[Path]:
    """Return the files of the house; `fleet/workers` is a link and not followed."""
    found = (path for top in TOPS for path in sorted((root / top).rglob(pattern)))
    return [path for path in found if (root / "fleet" / "workers") not in path.parents]


def modules_of(root: Path) -> dict[str, Path]:
    """Return dotted name -> file of every module."""
    return {_dotted(path.relative_to(root)): path for path in sources(root, "*.py")}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    parts = ("fleet", *parts) if parts[0] == "workers" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Yield every import of a module, also those inside functions and under TYPE_CHECKING."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _imports_in(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, module, alias.name)
        else:
            base = _absolute(package, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(path, node.lineno, module, full if full in known else base)


@cache
def _imports_in(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports of a source; several rules ask for those of every module."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def all_imports(root: Path) -> list[Import]:
    """Return every import of the house, also of what is not ours."""
    modules = modules_of(root)
    known = set(modules)
    return [item for module, path in modules.items() for item in imports_of(module, path, known)]


def graph_of(root: Path) -> Graph:
    """Return who imports whom. The door `fleet` hands out names lazily; what it names is no arrow of its own."""
    modules = modules_of(root)
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for item in all_imports(root):
        if item.target in modules and item.target != item.module:
            graph[item.module].add(item.target)
    return graph


def circles(graph: Graph) -> list[set[str]]:
    """Return the sets of modules that reach each other: strongly connected components (Tarjan 1972) of two and more."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            place = stack.index(node)
            component = set(stack[place:])
            del stack[place:]
            if len(component) > 1:
                found.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def rooms_of(graph: Graph, top: str) -> Graph:
    """Return the same for the rooms of one part: its sub-packages, and the modules that lie beside them."""
    depth = top.count(".") + 2
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, targets in graph.items():
        if not module.startswith(f"{top}."):
            continue
        room = ".".join(module.split(".")[:depth])
        inside = {".".join(target.split(".")[:depth]) for target in targets if target.startswith(f"{top}.")}
        rooms[room] |= inside - {room}
    return rooms


def floors_of(rooms: Graph) -> int:
    """Return how many floors rooms need: the longest way down. Circles count as one floor."""
    together = {room: min(circle) for circle in circles(rooms) for room in circle}
    below: dict[str, set[str]] = defaultdict(set)
    for room, targets in rooms.items():
        here = together.get(room, room)
        below[here] |= {together.get(target, target) for target in targets} - {here}
    height: dict[str, int] = {}

    def rise(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((rise(target) for target in below.get(room, ())), default=0)
        return height[room]

    return max(map(rise, tuple(below)), default=0)


def _figures(root: Path) -> Iterable[tuple[str, str]]:
    graph, modules = graph_of(root), modules_of(root)
    for top in ("fleet.engine", "fleet.cli"):
        rooms = rooms_of(graph, top)
        arrows = sum(map(len, rooms.values()))
        folders = Counter(path.parent for name, path in modules.items() if name.startswith(f"{top}."))
        yield f"{top}: rooms, floors, arrows", f"{len(rooms)}, {floors_of(rooms)}, {arrows}"
        yield f"{top}: files a folder, most", str(max(folders.values()))
    yield "circles of modules", str(len(circles(graph)))
    folders = Counter(path.parent for path in (*modules.values(), *sources(root, "*.lua")))
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in modules.values() if path.stat().st_size]
    yield "folders", str(len(folders))
    yield "files a folder, median and most", f"{median(folders.values()):g}, {max(folders.values())}"
    yield "modules, lines: median and most", f"{len(lines)}, {median(lines):g}, {max(lines)}"


def main() -> None:
    """Print the figures."""
    for name, figure in _figures(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        print(f"{name:<40} {figure}")


if __name__ == "__main__":
    main()
