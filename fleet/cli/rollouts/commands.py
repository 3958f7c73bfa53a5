"""`fleet rollout`: try a new persona or model on a share of a pool's tasks, and see how it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.operator import operator_name
from fleet.cli.terminal import fitted, say, table
from fleet.errors import ConfigurationError
from fleet.quoting import quote, stamp
from fleet.store.private.two_redis import state_client

if TYPE_CHECKING:
    from fleet.rollouts import Rollout
    from fleet.rollouts.book import Ending
    from fleet.signals.rollouts.view import RolloutView

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


class _PoolFirst(click.Group):
    """A group in which a word that is no command is a pool: `fleet rollout POOL --model NEW` starts one there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["start", *args]
        return super().resolve_command(ctx, args)


def _share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"expected a share such as 5% or 0.05, got {quote(value)}") from None


@click.group(cls=_PoolFirst, invoke_without_command=True)
@_JSON
@click.pass_context
def rollout(ctx: click.Context, as_json: bool) -> None:
    """Try a new persona or model on a share of a pool's tasks; it goes back by itself when it is worse.

    Success, cost and diversity are compared with the other tasks' after each answer (docs/rollout.md).

    \b
    Examples:
      fleet rollout research --persona conservative --share 5%
      fleet rollout research --persona-file terse.txt --share 10%
      fleet rollout research --model gpt-6-sol --share 5% --dearer 50%
      fleet rollout show research
      fleet rollout finish research
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@rollout.command()
@click.argument("pool")
@click.option("--persona", default="", metavar="NAME", help="Archetype that all of these tasks get.")
@click.option(
    "--persona-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="A persona of your own: FILE is its system prompt, and its name the persona's.",
)  # fmt: skip
@click.option("--model", default="", help="Model of the pool's provider: one of its models or `candidates`.")
@click.option("--share", default="5%", show_default=True, callback=_share, help="Of the pool's tasks, at most 50%.")
@click.option(
    "--dearer", default="10%", show_default=True, callback=_share, help="How much more an answer may cost on average."
)
@_JSON
def start(
    pool: str, persona: str, persona_file: Path | None, model: str, share: float, dearer: float, as_json: bool
) -> None:
    """Try something on a share of a pool's tasks: also `fleet rollout POOL ...`."""
    from fleet.engine.operations.rollouts.board import begin
    from fleet.rollouts import Rollout

    settings, prompt = config.current(), ""
    if persona_file is not None:
        if persona:
            raise ConfigurationError("expected --persona or --persona-file, got both; keep one")
        persona, prompt = persona_file.stem, persona_file.read_text(encoding="utf-8").strip()
        if not prompt:
            raise ConfigurationError(f"--persona-file: expected a system prompt, got an empty file ({persona_file})")
    wanted = Rollout(id="", pool=pool, persona=persona, prompt=prompt, model=model, share=share, dearer=dearer, since=0)
    with state_client(settings) as client:
        made = begin(client, settings, wanted, by=operator_name())
    if as_json:
        click.echo(json.dumps(made.model_dump(mode="json", exclude={"prompt"})))
        return
    say(f"{share * 100:g}% of {pool}'s tasks get {made.what}; `fleet rollout show {pool}` tells how they do")


@rollout.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show what is tried now, and what was."""
    _list(as_json=as_json)


@rollout.command()
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show the newest rollout of a pool, or one by its id: how it compares, and what speaks against it."""
    found = next((one for one in _views() if name in (one.pool, one.id)), None)
    if found is None:
        raise ConfigurationError(f"rollout {quote(name)}: expected a pool or id of `fleet rollout list`, got neither")
    if as_json:
        click.echo(json.dumps(_data(found), indent=2))
        return
    for line in _told(found):
        click.echo(line)


@rollout.command()
@click.argument("pool")
@_JSON
def stop(pool: str, as_json: bool) -> None:
    """End what is tried in a pool: all of its tasks are done as fleet.toml says."""
    over = _conclude(pool, "stopped")
    if as_json:
        click.echo(json.dumps({"pool": pool, "stopped": over is not None, "rollout": over.id if over else None}))
        return
    say(f"{over.what} is no longer tried in {pool}" if over else f"nothing is tried in {pool}")


@rollout.command()
@click.argument("pool")
@_JSON
def finish(pool: str, as_json: bool) -> None:
    """End what is tried in a pool and proved good, and print the lines for fleet.toml that make it the setting."""
    from fleet.engine.operations.rollouts.board import lines_for

    over = _conclude(pool, "finished")
    lines = lines_for(config.current(), over) if over else []
    if as_json:
        data = {"pool": pool, "finished": over is not None, "rollout": over.id if over else None, "toml": lines}
        click.echo(json.dumps(data))
        return
    if over is None:
        say(f"nothing is tried in {pool}")
        return
    say(f"{over.what} is no longer tried; put this into fleet.toml and restart the workers, for all tasks to get it:")
    for line in lines:
        click.echo(line)


def _conclude(pool: str, how: Ending) -> Rollout | None:
    from fleet.engine.operations.rollouts.board import conclude

    settings = config.current()
    with state_client(settings) as client:
        return conclude(client, settings, pool, how, by=operator_name())


def _views() -> list[RolloutView]:
    from fleet.engine.operations.rollouts.board import view_of
    from fleet.rollouts import read_rollouts

    with state_client(config.current()) as client:
        return [view_of(one) for one in read_rollouts(client)]


def _list(*, as_json: bool) -> None:
    found = _views()
    if as_json:
        click.echo(json.dumps({"rollouts": list(map(_data, found))}, indent=2))
        return
    if not found:
        click.echo("nothing is tried, nor was: `fleet rollout POOL --persona NAME --share 5%` starts one")
        return
    cells = [(one.pool, one.what, f"{one.share * 100:g}%", one.word, stamp(one.since), one.line) for one in found]
    for line in fitted(table([("POOL", "WHAT", "SHARE", "STATE", "SINCE", "SO FAR"), *cells], left=(0, 1, 3, 4, 5))):
        click.echo(line)


def _told(one: RolloutView) -> list[str]:
    word = one.word if one.ended_at is None else f"{one.word} {stamp(one.ended_at)}"
    lines = [
        f"{one.pool}: {one.what}, {one.share * 100:g}% of its tasks, {word}"
        f"{f', by {one.ended_by}' if one.ended_by else ''}",
        f"  since     {stamp(one.since)}{f', by {one.by}' if one.by else ''}; id {one.id}",
        f"  tasks     {one.new_tasks:,} under it, {one.new_failed:,} of them without a good first answer; "
        f"{one.old_tasks:,} others, {one.old_failed:,} of them",
    ]
    for row in one.aspects:
        if row.new is None or row.old is None:
            lines.append(f"  {row.aspect:<9} not known yet")
            continue
        numbers = (row.new, row.old) if row.aspect == "cost" else (row.new * 100, row.old * 100)
        paid = "tokens" if one.in_tokens else "micro-dollars"
        unit = {"cost": f"{paid} an answer", "diversity": "% alike", "success": "% good"}[row.aspect]
        lines.append(
            f"  {row.aspect:<9} {numbers[0]:,.1f} beside {numbers[1]:,.1f} {unit}; {row.evidence:.0%} of the evidence "
            "that sends it back"
        )
    return [*lines, f"  why       {one.why}"] if one.why else lines


def _data(one: RolloutView) -> dict[str, Any]:
    return one.model_dump(mode="json")
