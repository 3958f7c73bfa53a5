"""python -m tests.keys: what keys and words leave behind; one table says what held."""

from __future__ import annotations

import sys
import time

import click

from tests.keys.figures import Figure, Size
from tests.keys.rows import ROWS


@click.command()
@click.option("--check", is_flag=True, help="Exit with code 1 when a figure is not as promised.")
@click.option("--size", type=click.Choice(["small", "large"]), default="large", show_default=True)
@click.option("--only", metavar="NAME", help="Only rows whose name contains this.")
def main(check: bool, size: Size, only: str | None) -> None:
    """Measure each row with real processes, a real Redis and real HTTP."""
    chosen = [row for row in ROWS if (only or "") in row.name]
    if not chosen:
        raise click.UsageError(f"--only: expected a part of one of {[row.name for row in ROWS]}, got {only!r}")
    figures: list[Figure] = []
    for row in chosen:
        began = time.monotonic()
        try:
            new = row.apart(size)
        except Exception as error:  # noqa: BLE001 - the other rows are measured all the same
            new = [Figure(f"{row.name}=", "broken", False, (f"{type(error).__name__}: {error}"[-2000:],))]
        figures += new
        click.echo(f"{row.name} ({time.monotonic() - began:.0f} s): {' '.join(map(str, new))}", err=True)
        for figure in new:
            for note in figure.notes:
                click.echo(f"  {'' if figure.holds else 'NO: '}{note}", err=True)
    click.echo(" ".join(map(str, figures)))
    sys.exit(check and not all(figure.holds for figure in figures))


if __name__ == "__main__":
    main()
