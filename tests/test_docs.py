"""What the pages claim exists: paths, names in files, commands, settings, variables, metrics, alerts, links.

README's commands are carried out by `test_readme.py`, the programs of single pages by the tests that bear their names.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import click
import pytest

from fleet.cli.main import main
from fleet.cli.setup.reference import PLACES, tables
from fleet.config.sections import BrokerSettings
from fleet.signals.metrics import FLEET_METRICS, WORKER_METRICS
from tests.house import ROOT, modules_of, sources

#: Every page of the repository that people read.
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / ".github").rglob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
#: Folders whose files pages name from the root on.
FOLDERS = ("fleet", "workers", "tests", "benchmarks", "docs", "deploy", "scripts", "examples")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    """Return a page; of the changelog only the newest section, for older ones tell of what was."""
    text = page.read_text(encoding="utf-8")
    if page.name != "CHANGELOG.md":
        return text
    starts = [match.start() for match in re.finditer(r"^## ", text, re.M)]
    filled = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    return next((section for section in filled if section.count("\n") > 3), "")


def spans_of(page: Path) -> list[str]:
    """Return the code spans of a page's prose, each on one line."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.S | re.M)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Return language and text of a page's fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.S | re.M)


# -- files and names


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return what a module defines: `name`, `Class`, and `Class.attribute`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for name in _defined(node):
            found.add(name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in _defined(inner)}
    return frozenset(found)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def attributes() -> Mapping[str, set[str]]:
    """Return class -> attributes that it defines itself, over all modules."""
    found: dict[str, set[str]] = {}
    for path in modules_of(ROOT).values():
        for name in names_in(path):
            holder, _, attribute = name.partition(".")
            if holder[:1].isupper():
                found.setdefault(holder, set()).add(attribute)
    return found


def missing_places(spans: list[str]) -> list[str]:
    """Return the spans that name a file or a name in it which is not there."""
    place = re.compile(rf"^(?P<path>(?:{'|'.join(FOLDERS)})/[\w./-]*)(?:: (?P<name>[\w.]+))?$")
    missing = []
    for span in spans:
        match = place.match(span)
        if match is None:
            continue
        path = ROOT / match["path"]
        if not path.exists() or (match["name"] and match["name"] not in names_in(path)):
            missing.append(span)
    return missing


@each_page
def test_every_file_and_every_name_in_a_file_exists(page: Path) -> None:
    assert missing_places(spans_of(page)) == []


@each_page
def test_every_attribute_of_a_class_of_ours_exists(page: Path) -> None:
    ours = attributes()
    named = [re.fullmatch(r"([A-Z]\w+)\.(\w+)", span) for span in spans_of(page)]
    assert [m[0] for m in named if m and m[1] in ours and m[2] not in ours[m[1]]] == []


def test_how_it_works_names_the_road_file_by_file() -> None:
    spans = spans_of(ROOT / "docs" / "how-it-works.md")
    assert sum(": " in span and span.startswith(("fleet/", "workers/")) for span in spans) > 20
    rooms = {str(path.parent.relative_to(ROOT)) for path in modules_of(ROOT).values() if path.stat().st_size}
    named = {span.rstrip("/").removesuffix("/*.py") for span in spans}
    inside = ("fleet/cli/", "fleet/dashboard/")
    assert {room for room in rooms if not room.startswith(inside)} - named - {"workers"} == set()


def test_a_wrong_path_name_or_attribute_is_noticed() -> None:
    wrong = ["fleet/nowhere.py", "fleet/models.py: BotTask.pars", "fleet/models.py: Nobody"]
    assert missing_places([*wrong, "fleet/models.py: BotTask.parse", "docs/generate.py", "some/other.py"]) == wrong


#: Files that users have, or that Fleet writes: sources may speak of them.
USERS_FILES = {"fleet.toml", "my_bots.py", "stack.json", "redis.json"}


def test_every_file_that_a_source_speaks_of_exists() -> None:
    known = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    lost = []
    for path in (*sources(ROOT, "*.py"), *sources(ROOT, "*.lua"), *sorted((ROOT / "benchmarks").rglob("*.py"))):
        for name in re.findall(r"`([\w./-]+\.(?:py|lua|md|toml|json))`", path.read_text(encoding="utf-8")):
            is_known = any(f"/{place}".endswith(f"/{name.lstrip('.')}") for place in known)
            if not is_known and name not in USERS_FILES:
                lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert lost == []


# -- commands


def command_lines(page: Path) -> list[str]:
    """Return every `fleet ...` line and span of a page."""
    lines = [span for span in spans_of(page) if re.match(r"fleet [a-z-]", span)]
    for language, block in blocks_of(page):
        if language in ("", "console", "bash", "sh"):
            lines += re.findall(r"^(?:\$ )?(?:docker compose exec \w+ )?(fleet [a-z-][^|>\n]*)", block, re.M)
    return lines


def wrong_word(line: str) -> str | None:
    """Return the first word of a command line that the CLI does not know, or None."""
    words = iter(shlex.split(re.sub(r"\$\([^)]*\)", "X", line), comments=True)[1:])
    command: click.Command = main
    for word in words:
        if word.startswith("-"):
            name, _, value = word.partition("=")
            option = next((param for param in command.params if name in param.opts + param.secondary_opts), None)
            if option is None and name not in ("--help", "-h", "--version"):
                return word
            if isinstance(option, click.Option) and not (option.is_flag or value):
                next(words, None)
        elif isinstance(command, click.Group):
            if not word.islower():
                return None  # a placeholder: COMMAND
            found = command.get_command(click.Context(command), word)
            if found is None:
                return word
            command = found
    return None


@each_page
def test_every_command_and_option_exists(page: Path) -> None:
    assert [line for line in command_lines(page) if wrong_word(line)] == []


def test_a_wrong_command_or_option_is_noticed() -> None:
    assert wrong_word("fleet bots list --sort failed") is None
    assert wrong_word("fleet bots lst") == "lst"
    assert wrong_word("fleet run in.jsonl --ouput out.jsonl") == "--ouput"
    assert len(command_lines(ROOT / "README.md")) > 20


# -- settings, variables, metrics, alerts

KEYS = {
    ((table.path[0], *table.path[2:]) if table.named else table.path): {key.name for key in table.keys}
    for table in tables()
}
KEYS["redis", "brokers"] = set(BrokerSettings.model_fields)  # tables with a free name inside another one
NAMED = {table.path[0] for table in tables() if table.named}
VARIABLES = {table.variable(key).split(" ")[0] for table in tables() for key in table.keys}
METRICS = {name for metric in (*FLEET_METRICS, *WORKER_METRICS) for name in (metric.name, *metric.samples)}
ALERTS = set(re.findall(r"alert: (\w+)", (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")))


def unknown_keys(data: Mapping[str, object]) -> list[str]:
    """Return the keys of a parsed fleet.toml that no table has, without the names that are free."""
    unknown = []
    for path in _leaves(data, ()):
        table, key = (path[0], *path[2:-1]) if path[0] in NAMED else path[:-1], path[-1]
        in_key = table[-1:] and table[-1] in KEYS.get(table[:-1], ())  # a value that is itself a table
        is_known = key in KEYS.get(_without_free_name(table), ()) or key in KEYS.get(table[:-1], ())
        if not is_known and not in_key:
            unknown.append(".".join((*table, key)))
    return unknown


def _without_free_name(table: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path of a table as that of its kind: one of several of a key, by a name of its own, is as those."""
    for at in range(1, len(table) - 1):
        if table[at] in KEYS.get(table[:at], ()):
            return (*table[:at], *table[at + 2 :])
    return table


def _leaves(data: Mapping[str, object], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from _leaves(item, (*path, key))
        else:
            yield (*path, key)


@each_page
def test_every_setting_in_a_block_or_in_prose_exists(page: Path) -> None:
    for language, block in blocks_of(page):
        if language == "toml":
            assert unknown_keys(tomllib.loads(block)) == []
    named = [re.fullmatch(r"([a-z_]+)\.([a-z_]+)(?: = .*)?", span) for span in spans_of(page)]
    own = [m for m in named if m and (m[1],) in KEYS and m[2] not in ("toml", "errors", "models", "md", "py", "lua")]
    assert [m[0] for m in own if m[2] not in KEYS[(m[1],)]] == []


def is_variable(name: str) -> bool:
    """True for a FLEET_* variable that is read, with any name where names are free."""
    patterns = (re.sub("NAME", "[A-Z0-9_]+", known) for known in VARIABLES)
    return name in PLACES or any(re.fullmatch(pattern, name) for pattern in patterns)


@each_page
def test_every_variable_exists(page: Path) -> None:
    named = set(re.findall(r"\bFLEET_[A-Z][A-Z0-9_]*[A-Z0-9]\b", text_of(page)))
    assert [name for name in sorted(named) if not is_variable(name)] == []


@each_page
def test_every_metric_and_every_alert_exists(page: Path) -> None:
    metrics = [m[1] for span in spans_of(page) if (m := re.fullmatch(r"(fleet_[a-z_]+)(?:\{.*\})?", span))]
    alerts = [span for span in spans_of(page) if re.fullmatch(r"Fleet([A-Z][a-z0-9]+){2,}", span)]
    assert [name for name in metrics if name not in METRICS] == []
    assert [name for name in alerts if name not in ALERTS] == []


def test_a_wrong_setting_or_variable_is_noticed() -> None:
    data = tomllib.loads(
        '[pools.x]\nbot = 1\n[pools.x.persona]\nmood = 1\n[limits."a/b"]\nrpm = 1\n[pool.x]\nbots = 1'
        '\n[prices."a/b".tiers.flex]\ninput_usd_per_mtok = 1\nrpm = 1'
    )
    assert unknown_keys(data) == ["pools.bot", "pools.persona.mood", "pool.x.bots", "prices.tiers.flex.rpm"]
    assert is_variable("FLEET_PROVIDERS__OPENAI__KIND") and not is_variable("FLEET_REDIS__UR")


# -- links


def anchors_of(page: Path) -> list[str]:
    """Return the anchors that a Markdown page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [target.partition("#") for target in targets if not re.match(r"https?://", target)]
    assert [path for path, _, _ in local if path and not (page.parent / path).exists()] == []
    for path, _, anchor in local:
        if anchor:
            assert anchor in anchors_of(page.parent / path if path else page), f"{page.name}: #{anchor}"


def test_readme_leads_to_every_page_of_the_docs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs") and page.name != "README.md"]
    assert [page.name for page in pages if f"{page.name})" not in text] == []


# -- what is not there yet

#: What the pages say is missing -> where it will be once it is there.
NOT_THERE = {
    "vault": "fleet/vault/*.py",
    "response cache": "fleet/economy/cache/*.py",
    "batching": "fleet/economy/lanes/jobs.py",
}


@pytest.mark.parametrize(("page", "heading"), [("README.md", "What it does not do yet")])
def test_what_is_said_to_be_missing_is_missing(page: str, heading: str) -> None:
    section = (ROOT / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    text = " ".join(section.split())
    listed = {thing for thing in NOT_THERE if thing in text}
    assert listed == {thing for thing, place in NOT_THERE.items() if not any(ROOT.glob(place))}
