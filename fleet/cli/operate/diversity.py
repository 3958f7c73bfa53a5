"""`fleet diversity`, `fleet diversity relearn`: whether bots still answer differently, and what is done where not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.terminal import fitted
from fleet.errors import ConfigurationError
from fleet.models import bot_name
from fleet.quoting import counted, quote

if TYPE_CHECKING:
    from fleet.diversity import ClassState, Windows

#: Flagged bots that are named on a terminal; `--json` has all.
NAMED_BOTS = 8
#: What the rungs do, in few words.
RUNGS = {1: "context reshuffled", 2: "persona drawn anew", 3: "temperature raised"}
#: Which answers an aspect compares, in few words.
ASPECTS = {"across": "answers to different prompts", "within": "answers to one prompt"}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead.")
@click.pass_context
def diversity(ctx: click.Context, as_json: bool) -> None:
    """Show how alike bots answer, by task class, and what is done about it.

    \b
    Examples:
      fleet diversity
      fleet diversity --json | jq '.[] | select(.alarm) | .flagged'
      fleet diversity relearn research summary
    """
    if ctx.invoked_subcommand is not None:
        return
    classes = asyncio.run(_read(config.current()))
    if as_json:
        click.echo(json.dumps([_row(state, answers) for state, answers in classes], indent=2))
        return
    if not classes:
        click.echo("no answers yet that are long enough to compare (8 words)")
    for state, answers in classes:
        click.echo("\n".join(fitted(_lines(state, answers))))


@diversity.command()
@click.argument("pool")
@click.argument("kind")
def relearn(pool: str, kind: str) -> None:
    """Take a class's answers of now as normal: forget earlier ones, end its alarm and remedies.

    \b
    Example:
      fleet diversity relearn research summary
    """
    asyncio.run(_forget(config.current(), pool, kind))
    click.echo(f"{pool} {kind}: learning anew, its remedies end")


async def _read(settings: config.Settings) -> list[tuple[ClassState, int]]:
    """Return each class with its number of answers; one that nobody has looked at yet has an empty state."""
    from fleet.diversity import ClassState

    async with _windows(settings) as windows:
        counts, stored = await windows.classes(), await windows.states()
    return [
        (stored[pool, kind].state if (pool, kind) in stored else ClassState(pool=pool, kind=kind), count)
        for (pool, kind), count in sorted(counts.items())
    ]


async def _forget(settings: config.Settings, pool: str, kind: str) -> None:
    async with _windows(settings) as windows:
        known = await windows.classes()
        if (pool, kind) not in known:
            names = ", ".join(" ".join(one) for one in sorted(known)) or "none yet"
            raise ConfigurationError(
                f"expected a pool and a kind with answers ({names}), got {quote(f'{pool} {kind}')}"
            )
        await windows.forget(pool, kind)


@asynccontextmanager
async def _windows(settings: config.Settings) -> AsyncIterator[Windows]:
    from fleet.diversity import Windows
    from fleet.store.client import Store
    from fleet.store.embedded import state_url

    store = Store(state_url(settings), timeout_s=settings.redis.socket_timeout_s)
    try:
        yield Windows(store, settings)
    finally:
        await store.close()


def _row(state: ClassState, answers: int) -> dict[str, Any]:
    """Return one class for machines: bots by name, without what only the next look needs."""
    names = {bot: bot_name(state.pool, bot) for bot in {*state.flagged, *state.remedies}}
    return {
        "pool": state.pool,
        "kind": state.kind,
        "answers": answers,
        "phase": _phase(state),
        "alarm": state.alarm,
        "readings": {aspect: reading.model_dump() for aspect, reading in state.readings.items()},
        "flagged": [names[bot] for bot in state.flagged],
        "remedies": {names[bot]: remedy.rung for bot, remedy in sorted(state.remedies.items())},
        "control": [names[bot] for bot in state.trial.control] if state.trial else [],
        "verdict": state.verdict or None,
    }


def _phase(state: ClassState) -> str:
    if state.phase == "watching" and not any(reading.usual_score for reading in state.readings.values()):
        return "learning"
    return state.phase


def _lines(state: ClassState, answers: int) -> Iterator[str]:
    yield f"{state.pool} {state.kind}{'  ALARM' if state.alarm else ''}"
    yield f"  {_phase(state):<9} {counted(answers, 'answer')} so far"
    for aspect, reading in state.readings.items():
        usual = "not known yet" if reading.usual_score is None else f"usually {reading.usual_score:,.1f}"
        near = f"{reading.near_share:.1%} have a near neighbour"
        if reading.usual_near_share is not None:
            near += f", usually {reading.usual_near_share:.1%}"
        fallen = ", FALLEN" if reading.fallen else ""
        yield f"  score     {reading.score:,.1f} ({usual}) of {ASPECTS[aspect]}; {near}{fallen}"
    if state.flagged:
        shown = ", ".join(bot_name(state.pool, bot) for bot in state.flagged[:NAMED_BOTS])
        more = f" and {len(state.flagged) - NAMED_BOTS} more" if len(state.flagged) > NAMED_BOTS else ""
        yield f"  alike     {counted(len(state.flagged), 'bot')}: {shown}{more}"
    if state.remedies:
        rungs = [remedy.rung for remedy in state.remedies.values()]
        counts = ", ".join(f"{rungs.count(rung)} {RUNGS[rung]}" for rung in sorted(set(rungs)))
        yield f"  remedies  {counts}{f'; {len(state.trial.control)} held back as control' if state.trial else ''}"
    if state.verdict:
        yield f"  verdict   {state.verdict}"
