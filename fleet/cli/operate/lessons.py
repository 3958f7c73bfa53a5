"""`fleet lessons`: what models have taught the fleet, which `fleet limits` shows, too; forget it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.terminal import fitted
from fleet.errors import ConfigurationError
from fleet.lessons import RATIO, SCHEMAS, UNSENT, WINDOW, Lesson
from fleet.quoting import counted, duration, quote, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What people write for what is learnt of a model's sizes.
_SIZES = {RATIO: "ratio", WINDOW: "window"}


def read_by_api(settings: config.Settings) -> Mapping[str, list[Lesson]]:
    """Return what each model has taught, by `provider/model`."""
    from fleet.engine.answers.lessons import read_lessons
    from fleet.store.private.two_redis import state_client

    by_api: dict[str, list[Lesson]] = {}
    with state_client(settings) as client:
        for lesson in read_lessons(client):
            by_api.setdefault(lesson.api, []).append(lesson)
    return by_api


def told(lessons: Sequence[Lesson]) -> list[dict[str, Any]]:
    """Return lessons for `--json`: `refuses` names a field or a role, `unsent` a wish, the others are sizes."""
    return [_as_dict(lesson) for lesson in lessons]


def _as_dict(lesson: Lesson) -> dict[str, Any]:
    told: dict[str, Any] = {"learnt_at": lesson.learnt_at}
    if lesson.what == RATIO:
        return {"ratio": lesson.value, **told}
    if lesson.what == WINDOW:
        return {"window_tokens": int(lesson.value), **told, "until": lesson.probe_at}
    if lesson.what.startswith(UNSENT):
        return {"unsent": lesson.what.removeprefix(UNSENT), **told, "tried_again_at": lesson.probe_at}
    return {"refuses": lesson.what, **told, "tried_again_at": lesson.probe_at}


def lines(lessons: Sequence[Lesson]) -> Iterator[str]:
    """Yield what a person is told of a model's lessons."""
    for lesson in lessons:
        at = stamp(lesson.learnt_at)
        if lesson.what == RATIO:
            yield f"  counts    {lesson.value:.2f} tokens where Fleet estimates one (learnt from its answers)"
        elif lesson.what == WINDOW:
            yield f"  window    {lesson.value:,.0f} tokens, prompt and answer together (learnt {at}, from an error)"
        else:
            left_s = lesson.probe_at - time.time()
            when = f"in {duration(left_s)}" if left_s > 0 else "with the next call"
            verb = "unsent   " if lesson.what.startswith(UNSENT) else "refuses  "
            yield f"  {verb} {_named(lesson.what)} (learnt {at}; tried again {when})"


def _named(what: str) -> str:
    """Return what a model refuses as people say it."""
    if what.startswith(SCHEMAS):
        _, name, form = what.split(":")
        return f"the schema {name}, {form}"
    return "JSON schemas by the wire" if what == "schema" else what.replace("role:", "the role ").removeprefix(UNSENT)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def lessons(ctx: click.Context, as_json: bool) -> None:
    """Show what models have taught the fleet; forget it.

    \b
    Examples:
      fleet lessons
      fleet lessons show openai/gpt-5
      fleet lessons forget openai/gpt-5 temperature
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@lessons.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_lessons(as_json: bool) -> None:
    """List the lessons by model: the same as `fleet lessons` alone.

    \b
    Examples:
      fleet lessons list --json
    """
    _list(None, as_json=as_json)


@lessons.command()
@click.argument("api", metavar="PROVIDER/MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(api: str, as_json: bool) -> None:
    """Show what one model has taught.

    \b
    Examples:
      fleet lessons show openai/gpt-5
    """
    _list(api, as_json=as_json)


def _list(api: str | None, *, as_json: bool) -> None:
    settings = config.current()
    if api is not None:
        _check_form(api, settings)
    taught = read_by_api(settings)
    if api is not None and api not in taught and api not in settings.limits_in_use:
        raise ConfigurationError(f"expected one of {', '.join(sorted(settings.limits_in_use))}, got {quote(api)}")
    chosen = {name: found for name, found in sorted(taught.items()) if api in (None, name)}
    if as_json:
        click.echo(
            json.dumps({"lessons": [{"api": name, "taught": told(found)} for name, found in chosen.items()]}, indent=2)
        )
        return
    for name, found in chosen.items():
        click.echo("\n".join(fitted([name, *lines(found)])))
    if not chosen:
        click.echo(f"{api} has taught nothing yet" if api else "no model has taught anything yet")


def _check_form(api: str, settings: config.Settings) -> None:
    """Refuse what is no PROVIDER/MODEL; what an earlier one has taught is known in Redis alone."""
    if "/" not in api:
        raise ConfigurationError(f"expected one of {', '.join(sorted(settings.limits_in_use))}, got {quote(api)}")


@click.command()
@click.argument("api", metavar="PROVIDER/MODEL")
@click.argument("what", metavar="[FIELD]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def forget(api: str, what: str | None, as_json: bool) -> None:
    """Forget what a model has taught: what it refuses, how it counts. Its next calls find out again.

    FIELD is a name that `fleet limits` shows, or `role:system`, `ratio`, `window`; without it, everything goes.

    \b
    Examples:
      fleet limits forget openai/gpt-5 temperature
      fleet limits forget local/qwen3
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.answers.lessons import forget_lessons
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    _check_form(api, settings)
    wanted = next((name for name, told in _SIZES.items() if told == what), what)
    with state_client(settings) as client:
        gone = forget_lessons(client, api, wanted)
        if not gone and api not in (known := settings.limits_in_use):
            raise ConfigurationError(f"expected one of {', '.join(sorted(known))}, got {quote(api)}")
        for lesson in gone:
            forgotten = _SIZES.get(lesson.what, lesson.what)
            record_deed(client, catalogue.LESSON_FORGOTTEN, operator_name(), api=api, what=forgotten)
    names = [_SIZES.get(lesson.what, lesson.what.removeprefix(UNSENT)) for lesson in gone]
    if as_json:
        click.echo(json.dumps({"api": api, "forgot": names}))
        return
    told = f"forgot {counted(len(gone), 'lesson')}: {', '.join(names)}" if names else "nothing was known"
    click.echo(f"{api}: {told}")


lessons.add_command(forget)
