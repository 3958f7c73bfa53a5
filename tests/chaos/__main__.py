"""python -m tests.chaos: attack Fleet, and stock Celery beside it; one table says what held."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.attacks import ATTACKS
from tests.chaos.suite import COLUMNS, Budget, Verdict, run_apart


@click.command()
@click.option("--budget", type=click.Choice(["small", "large"]), default="small", show_default=True)
@click.option("--seed", default=1, show_default=True, help="Decides latencies, victims and moments.")
@click.option("--only", metavar="NAME", help="Only attacks whose name contains this.")
@click.option(
    "--system",
    type=click.Choice(["both", "fleet", "stock"]),
    default="both",
    show_default=True,
    help="Whom to attack: Fleet, and stock Celery as the baseline.",
)
def main(budget: Budget, seed: int, only: str | None, system: str) -> None:
    """Attack real processes and a real Redis. Exit code 1 when Fleet broke a promise."""
    chosen = [attack for attack in ATTACKS if (only or "") in attack.name and (budget == "large" or attack.small)]
    if not chosen:
        raise click.UsageError(f"--only: expected a part of one of {[a.name for a in ATTACKS]}, got {only!r}")
    verdicts, is_broken = [], False
    for name in ("fleet", "stock") if system == "both" else (system,):
        for attack in chosen:
            if name == "stock" and attack.fleet_only:
                continue
            verdicts.append(run_apart(attack, budget, seed=seed, stock=name == "stock"))
            is_broken = is_broken or (name == "fleet" and bool(verdicts[-1].broken))
            click.echo(" | ".join(verdicts[-1].row()), err=True)
    _print(verdicts, f"Chaos, {budget} budget, seed {seed}")
    sys.exit(is_broken)


def _print(verdicts: list[Verdict], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index in (0, len(COLUMNS) - 1) else "right")
    for verdict in verdicts:
        table.add_row(*verdict.row())
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
