"""`fleet diversity`, `fleet diversity relearn`: whether bots still answer differently, and what is done where not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.operator import operator_name
from fleet.cli.terminal import fitted
from fleet.errors import ConfigurationError
from fleet.models import bot_name
from fleet.quoting import counted, quote

if TYPE_CHECKING:
    from fleet.diversity import ClassState

#: Flagged bots that are named on a terminal; `--json` has all.
NAMED_BOTS = 8
#: Which answers an aspect compares, in few words.
ASPECTS = {"across": "answers to different prompts", "within": "answers to one prompt"}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def diversity(ctx: click.Context, as_json: bool) -> None:
    """Show how alike bots answer, by task class, and what is done about it.

    \b
    Examples:
      fleet diversity
      fleet diversity --json | jq '.classes[] | select(.alarm) | .flagged'
      fleet diversity relearn research summary
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@diversity.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_classes(as_json: bool) -> None:
    """List the task classes: the same as `fleet diversity` alone.

    \b
    Example:
      fleet diversity list --json
    """
    _list(None, as_json=as_json)


@diversity.command()
@click.argument("pool")
@click.argument("kind")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(pool: str, kind: str, as_json: bool) -> None:
    """Show one task class of a pool.

    \b
    Example:
      fleet diversity show research summary
    """
    _list((pool, kind), as_json=as_json)


def _list(wanted: tuple[str, str] | None, *, as_json: bool) -> None:
    from fleet.diversity import read_classes
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    if wanted is not None:
        _check_pool(wanted[0], settings)
    with state_client(settings) as client:
        found = read_classes(client, settings.pools)
    classes = [(state, answers) for state, answers in found if wanted in (None, (state.pool, state.kind))]
    if wanted is not None and not classes:
        names = ", ".join(f"{state.pool} {state.kind}" for state, _ in found) or "none yet"
        raise ConfigurationError(f"expected a pool and a kind with answers ({names}), got {quote(' '.join(wanted))}")
    if as_json:
        click.echo(json.dumps({"classes": [_row(state, answers) for state, answers in classes]}, indent=2))
        return
    if not classes:
        click.echo("no answers yet that are long enough to compare (8 words)")
    for state, answers in classes:
        click.echo("\n".join(fitted(_lines(state, answers))))


@diversity.command()
@click.argument("pool")
@click.argument("kind")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def relearn(pool: str, kind: str, as_json: bool) -> None:
    """Take a class's answers of now as normal: forget earlier ones, end its alarm and remedies.

    \b
    Example:
      fleet diversity relearn research summary
    """
    from fleet.engine.operations.levers import relearn_class
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    _check_pool(pool, settings)
    with state_client(settings) as client:
        relearn_class(client, settings, pool, kind, by=operator_name())
    if as_json:
        click.echo(json.dumps({"pool": pool, "kind": kind, "phase": "learning"}))
        return
    click.echo(f"{pool} {kind}: learning anew, its remedies end")


def _check_pool(pool: str, settings: config.Settings) -> None:
    if pool not in settings.pools:
        raise ConfigurationError(f"POOL: expected one of {', '.join(settings.pools)}, got {quote(pool)}")


def _row(state: ClassState, answers: int) -> dict[str, Any]:
    """Return one class for machines: bots by name, without what only the next look needs."""
    from fleet.engine.operations.sameness import phase_of

    names = {bot: bot_name(state.pool, bot) for bot in {*state.flagged, *state.remedies}}
    return {
        "pool": state.pool,
        "kind": state.kind,
        "answers": answers,
        "phase": phase_of(state),
        "alarm": state.alarm,
        "alarm_at": state.alarm_at or None,
        "readings": {aspect: reading.model_dump() for aspect, reading in state.readings.items()},
        "flagged": [names[bot] for bot in state.flagged],
        "remedies": {names[bot]: remedy.rung for bot, remedy in sorted(state.remedies.items())},
        "control": [names[bot] for bot in state.trial.control] if state.trial else [],
        "verdict": state.verdict or None,
    }


def _lines(state: ClassState, answers: int) -> Iterator[str]:
    from fleet.engine.operations.sameness import REMEDIES, phase_of, sentence_of

    yield f"{state.pool} {state.kind}{'  ALARM' if state.alarm else ''}"
    yield f"  {phase_of(state):<9} {counted(answers, 'answer')} so far"
    yield f"  now       {sentence_of(state, answers)}"
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
        counts = ", ".join(f"{rungs.count(rung)} {REMEDIES[rung]}" for rung in sorted(set(rungs)))
        yield f"  remedies  {counts}{f'; {len(state.trial.control)} held back as control' if state.trial else ''}"
    if state.verdict:
        yield f"  verdict   {state.verdict}"
