"""`fleet init` writes a commented fleet.toml; `fleet doctor` checks what can lose tasks or money.

The text of fleet.toml is in `reference`, the checks are in `checks`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.terminal import NARROW
from fleet.config import CONFIG_NAME
from fleet.errors import ConfigurationError
from fleet.quoting import counted

if TYPE_CHECKING:
    from fleet.cli.setup.check import Check

#: Permission bits of a new fleet.toml: it may come to hold the password of Redis.
CONFIG_MODE = 0o600
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@click.option("--force", is_flag=True, help=f"Replace a {CONFIG_NAME} that is already there.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path))
def init(folder: Path, force: bool) -> None:
    """Write a commented fleet.toml.

    Every key stands in it with its default, commented out, so that it changes nothing until you edit it.

    \b
    Examples:
      fleet init
      fleet init --force ~/project
    """
    from fleet.cli.setup.reference import config_text

    path = folder / CONFIG_NAME
    if path.exists() and not force:
        raise ConfigurationError(f"{path}: expected no file there yet, got one; --force replaces it")
    temporary = path.with_suffix(".toml.new")
    temporary.touch(mode=CONFIG_MODE)
    temporary.write_text(config_text(), encoding="utf-8")
    temporary.replace(path)
    click.echo(f"Wrote {path}. Next: add a provider and a pool to it, then run `fleet doctor`.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON instead.")
@click.option("--all", "show_all", is_flag=True, help="Show also what is in order.")
@click.option("--call", is_flag=True, help="Make one real call per provider and model; each costs about 30 tokens.")
@click.pass_context
def doctor(context: click.Context, /, as_json: bool, show_all: bool, call: bool) -> None:
    """Check every setting that can lose tasks or money.

    Looks at Redis (starting the embedded one when none is configured), fleet.toml, keys, limits, prices,
    the Celery settings in force and this host, asks each provider for its list of models, and says what to do.
    Exit code 1 when a check fails.

    \b
    Examples:
      fleet doctor
      fleet doctor --call
      fleet doctor --json | jq '.[] | select(.level != "ok")'
    """
    from fleet.cli.setup.checks import check_all
    from fleet.cli.setup.findings import gather
    from fleet.config import load

    settings = load()
    checks = check_all(settings, gather(settings, call=call))
    if as_json:
        # An array, unlike other lists: scripts of the first release read it so.
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print(checks, show_all=show_all)
    context.exit(1 if any(check.level == "fail" for check in checks) else 0)


def _print(checks: list[Check], *, show_all: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    shown = [check for check in checks if show_all or check.level != "ok"]
    if shown:
        narrow = console.width < NARROW
        heads = ("", "check: found, and what to do") if narrow else ("", "check", "found, and what to do")
        table = Table(*heads, box=None, pad_edge=False, header_style="bold")
        for check in shown:
            found = check.found if not check.advice else f"{check.found}\n→ {check.advice}"
            cells = [Text(f"{check.name}\n{found}")] if narrow else [Text(check.name), Text(found)]
            table.add_row(Text(check.level, STYLES[check.level]), *cells)
        console.print(table)
    counts = {level: sum(check.level == level for check in checks) for level in STYLES}
    hint = "" if show_all else "  (--all shows what is in order)"
    told = f"{counts['ok']} in order, {counted(counts['warn'], 'warning')}, {counted(counts['fail'], 'failure')}"
    console.print(f"{told}{hint}")
