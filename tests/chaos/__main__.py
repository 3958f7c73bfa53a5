"""python -m tests.chaos: attack Fleet, and stock Celery beside it; one table says what held."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.attacks import ATTACKS
from tests.chaos.suite import COLUMNS, Budget, Verdict, run


@click.command()
@click.option("--budget", type=click.Choice(["small", "large"]), default="small", show_default=True)
@click.option("--seed", default=1, show_default=True, help="Decides latencies, victims and moments.")
@click.option("--only", metavar="NAME", help="Only attacks whose name contains this.")
@click.option("--stock/--no-stock", default=True, show_default=True, help="The same on stock Celery: the baseline.")
def main(budget: Budget, seed: int, only: str | None, stock: bool) -> None:
    """Attack real processes and a real Redis. Exit code 1 when Fleet broke a promise."""
    chosen = [attack for attack in ATTACKS if (only or "") in attack.name and (budget == "large" or attack.small)]
    if not chosen:
        raise click.UsageError(f"--only: expected a part of one of {[a.name for a in ATTACKS]}, got {only!r}")
    verdicts = []
    for is_stock in (False, True) if stock else (False,):
        for attack in chosen:
            verdicts.append(run(attack, budget, seed=seed, stock=is_stock))
            click.echo(" | ".join(verdicts[-1].row()), err=True)
    _print(verdicts, f"Chaos, {budget} budget, seed {seed}")
    sys.exit(any(verdict.broken for verdict in verdicts[: len(chosen)]))


def _print(verdicts: list[Verdict], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index in (0, len(COLUMNS) - 1) else "right")
    for verdict in verdicts:
        table.add_row(*verdict.row())
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
