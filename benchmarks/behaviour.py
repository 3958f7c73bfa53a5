"""python -m benchmarks.behaviour: bots go bad, lazy or alike, and the fleet finds them. Takes 15 minutes."""

from __future__ import annotations

import time

import click

from benchmarks import behaviour_bots, behaviour_diversity
from benchmarks.behaviour_watch import Figure, print_figures

PARTS = {
    "found": behaviour_bots.found,
    "crowd": behaviour_bots.crowd,
    "outage": behaviour_bots.outage,
    "turns": behaviour_bots.turns,
    "diversity": behaviour_diversity.collapse,
    "text": behaviour_diversity.text,
}


@click.command()
@click.option("--tasks", default=50_000, show_default=True, help="Tasks that 100 bots with 20 bad ones do.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Only this part; may be given repeatedly.")
@click.option("--seed", default=1, show_default=True, help="Decides who is bad, latencies and spoilt answers.")
def main(tasks: int, only: tuple[str, ...], seed: int) -> None:
    """Measure what becomes of bad bots and of their tasks, and of bots that answer alike; print one table."""
    figures: list[Figure] = []
    try:
        for name in only or PARTS:
            started = time.monotonic()
            figures += PARTS[name](tasks, seed)
            click.echo(f"{name}: {time.monotonic() - started:.0f} s", err=True)
    finally:  # what was measured until then took minutes
        print_figures(f"Bad bots: errors 50%, avoidance, 4 times as slow; {tasks:,} tasks, seed {seed}", figures)


if __name__ == "__main__":
    main()
