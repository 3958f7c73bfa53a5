"""What is wrong with a command line, in one line as all errors of the house: expected, got, what to do."""

from __future__ import annotations

import re
from typing import IO, Any

import click

from fleet.cli.exit_codes import EXIT_USAGE
from fleet.cli.terminal import say
from fleet.quoting import brief, quote

#: What click says about a value, and how the house says it.
_PHRASES = (
    (re.compile(r"(?P<got>.+?) is not one of (?P<known>.+?)\.?", re.DOTALL), "expected one of {known}, got {got}"),
    (
        re.compile(r"(?P<got>.+?) is not in the range (?P<known>.+?)\.?", re.DOTALL),
        "expected a number x with {known}, got {got}",
    ),
    (re.compile(r"(?P<got>.+?) is not a valid integer( range)?\.?", re.DOTALL), "expected a whole number, got {got}"),
    (re.compile(r"(?P<got>.+?) is not a valid float( range)?\.?", re.DOTALL), "expected a number, got {got}"),
    (re.compile(r"(File|Path) (?P<got>'.+') does not exist\.?", re.DOTALL), "expected a file that exists, got {got}"),
    (re.compile(r"Directory (?P<got>'.+') does not exist\.?", re.DOTALL), "expected a folder that exists, got {got}"),
    (re.compile(r"File (?P<got>'.+') is a directory\.?", re.DOTALL), "expected a file, got the folder {got}"),
    (re.compile(r"(?P<got>.+?) is not a valid (?P<known>.+?)\.?", re.DOTALL), "expected a valid {known}, got {got}"),
    (re.compile(r"No such command (?P<got>.+?)\.?", re.DOTALL), "expected one of {commands}, got {got}"),
    (re.compile(r"Missing command\.?"), "expected one of {commands}, got no command"),
    (
        re.compile(r"Got unexpected extra arguments? \((?P<got>.+)\)", re.DOTALL),
        "expected no more arguments, got {got}",
    ),
    (
        re.compile(r"Option (?P<known>.+?) requires an argument\.?", re.DOTALL),
        "expected a value after {known}, got none",
    ),
)
#: Bytes of a message at most: what somebody typed may be a page.
_MOST = 600


class WrongUse(click.ClickException):
    """A command line that is no use: one line on stderr, exit code 2."""

    exit_code = EXIT_USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        say(self.message)


#: What click 8.2 and later raise for a command without arguments: its message is the help, for people to read.
_HELP: type[click.ClickException] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


def told(error: click.UsageError) -> click.ClickException:
    """Return the error that says the same in our words; the help as click shows it."""
    if isinstance(error, _HELP):
        return error
    asked = error.ctx.command_path if error.ctx else "fleet"
    return WrongUse(f"{brief(_reason(error), _MOST)}; `{asked} --help` tells more")


def _reason(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        near = f", the nearest known one is {error.possibilities[0]}" if error.possibilities else ""
        return f"expected a known option, got {quote(error.option_name)}{near}"
    if isinstance(error, click.MissingParameter):
        return f"expected {_name(error)}, got nothing"
    message = _in_our_words(error)
    return f"{_name(error)}: {message}" if isinstance(error, click.BadParameter) and error.param else message


def _in_our_words(error: click.UsageError) -> str:
    commands = ""
    if error.ctx is not None and isinstance(error.ctx.command, click.Group):
        commands = ", ".join(error.ctx.command.list_commands(error.ctx))
    for pattern, words in _PHRASES:
        if found := pattern.fullmatch(error.message):
            parts = {name: re.sub(r"'([^']*)'(?=, |$)", r"\1", text) for name, text in found.groupdict().items()}
            got = found.groupdict().get("got", "")
            return words.format(**{**parts, "got": got if got.startswith("'") else quote(got), "commands": commands})
    return error.message.removesuffix(".")


def _name(error: click.BadParameter) -> str:
    """Return what people type for a parameter: the longest spelling of an option, the placeholder of an argument."""
    param = error.param
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    if param is None:
        return str(error.param_hint or "a value")
    return str(param.metavar or param.human_readable_name).removesuffix("...")
