"""The `fleet` command: finds a subcommand by name and imports its module only when it is called.

So `fleet --help` imports click and nothing else of weight. What a subcommand does lives in its own module.

Exit codes: 0 done, 1 failure, 2 wrong usage or configuration, 3 tasks wait for somebody, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

import click

from fleet.cli.exit_codes import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from fleet.cli.terminal import adapt, say
from fleet.cli.wrong_use import told
from fleet.engine import core_dumps
from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import nearest, quote

#: Command name -> module, attribute, one line of help. The line must equal the command's own (a test checks).
COMMANDS = {
    "demo": ("fleet.cli.demo.command", "demo", "Run 100 bots over 500 tasks against the simulator, on this machine."),
    "up": ("fleet.cli.stack.commands", "up", "Start the stack: Redis, workers and Flower."),
    "down": ("fleet.cli.stack.commands", "down", "Stop the stack that `fleet up` started."),
    "submit": ("fleet.cli.run.commands", "submit", "Submit one task and print its answer."),
    "ask": ("fleet.cli.run.ask", "ask", "Ask several bots one question and print one answer."),
    "run": ("fleet.cli.run.commands", "run", "Run every line of a JSONL file as a task; resumable."),
    "stats": ("fleet.cli.operate.stats", "stats", "Show the three signals: completions, errors, resources."),
    "top": (
        "fleet.cli.operate.top",
        "top",
        "Watch the fleet live in the terminal: signals, pools, bots, limits, events.",
    ),
    "bots": ("fleet.cli.operate.bots", "bots", "List bots and how they fare; open, quarantine and release them."),
    "breakers": (
        "fleet.cli.operate.breakers",
        "breakers",
        "Show the breaker of each provider, model and key; close one by hand.",
    ),
    "bill": (
        "fleet.cli.money.bill",
        "bill",
        "Show what every call has cost: by pool, bot, tenant, kind, provider, model, key, tier, day, hour.",
    ),
    "budgets": (
        "fleet.cli.money.budgets",
        "budgets",
        "Show budgets, what is spent of them and when they end; set them while the fleet runs.",
    ),
    "payouts": ("fleet.cli.payouts.commands", "payouts", "Show what bots have earned for their payees; pay it."),
    "keys": (
        "fleet.cli.keys.commands",
        "keys",
        "Show where each provider's key comes from; add, rotate, revoke and check keys.",
    ),
    "lessons": ("fleet.cli.operate.lessons", "lessons", "Show what models have taught the fleet; forget it."),
    "context": (
        "fleet.cli.operate.contexts",
        "context",
        "Store documents that many tasks share; list and remove them.",
    ),
    "pools": ("fleet.cli.operate.pools", "pools", "Show the pools' backlogs and gates; pause and resume them."),
    "events": (
        "fleet.cli.operate.events",
        "events",
        "Show what happened to the fleet, and who did what; the newest last.",
    ),
    "alerts": (
        "fleet.cli.operate.alerts",
        "alerts",
        "Show what the webhook was told is wrong; test it, or tell it.",
    ),
    "tasks": (
        "fleet.cli.operate.tasks",
        "tasks",
        "Find tasks by pool, tenant, kind, metadata, state or error; open one.",
    ),
    "why": (
        "fleet.cli.operate.why",
        "why",
        "Tell where a task is: what it waits for, who holds it, how it ended.",
    ),
    "cancel": (
        "fleet.cli.operate.cancel",
        "cancel",
        "Keep tasks from starting, wherever they wait, also while no worker is alive.",
    ),
    "forget": (
        "fleet.cli.operate.forget",
        "forget",
        "Erase what Fleet keeps of a tenant, or of some tasks: prompts, answers, names.",
    ),
    "dead": ("fleet.cli.operate.dead", "dead", "List, show, replay or purge the tasks that failed for good."),
    "cache": (
        "fleet.cli.operate.cache",
        "cache",
        "Show what is kept of the answers of deterministic kinds, and what they have saved; drop them.",
    ),
    "lanes": (
        "fleet.cli.operate.lanes",
        "lanes",
        "Show what is in batches or in the background, what waits for a batch, and by when it is needed.",
    ),
    "grade": (
        "fleet.cli.run.grade",
        "grade",
        "Tell the fleet whether answers were right: its record of bots, kinds and models learns it.",
    ),
    "asks": (
        "fleet.cli.run.asks",
        "asks",
        "Show the newest asks: one question to several bots (`fleet ask`, `ask_fleet`), and what came of them.",
    ),
    "job": (
        "fleet.cli.operate.jobs",
        "job",
        "Show jobs, many tasks with one end; seal or cancel one, queue what failed in it again.",
    ),
    "health": ("fleet.cli.stack.health", "health", "Tell whether a worker works: for probes of containers."),
    "scaling": (
        "fleet.cli.stack.scaling",
        "scaling",
        "Show how many slots and workers are wanted, and why.",
    ),
    "schedules": (
        "fleet.cli.operate.schedules",
        "schedules",
        "Show what is submitted by the clock, and when next; pause it, or run it now.",
    ),
    "tenants": (
        "fleet.cli.operate.tenants",
        "tenants",
        "Show which tenants' tasks wait, for how long, their weights, and what share of the takes each has.",
    ),
    "rollout": (
        "fleet.cli.rollouts.commands",
        "rollout",
        "Try a new persona or model on a share of a pool's tasks; it goes back by itself when it is worse.",
    ),
    "limits": (
        "fleet.cli.operate.limits",
        "limits",
        "Show each limit live: used, waiting, next grant, rate, last 429, what its model refuses; change one.",
    ),
    "diversity": (
        "fleet.cli.operate.diversity",
        "diversity",
        "Show how alike bots answer, by task class, and what is done about it.",
    ),
    "simulate": (
        "fleet.cli.run.simulate",
        "simulate",
        "Tell what limits would give, by running the limiter in simulated time; nothing is sent.",
    ),
    "simulator": (
        "fleet.cli.stack.simulator",
        "simulator",
        "Run a simulated LLM provider, free of cost: OpenAI's and Anthropic's API, limits, failures and a ledger.",
    ),
    "backup": (
        "fleet.cli.stack.backup",
        "backup",
        "Write what Redis holds of the fleet to a file, while it runs.",
    ),
    "restore": (
        "fleet.cli.stack.backup",
        "restore",
        "Put a backup into Redis: another server, a newer version, or the same one.",
    ),
    "init": ("fleet.cli.setup.commands", "init", "Write a commented fleet.toml."),
    "acl": ("fleet.cli.setup.acl", "acl", "Print what each role may do in Redis, as ACL rules; make the users."),
    "doctor": ("fleet.cli.setup.commands", "doctor", "Check every setting that can lose tasks or money."),
}
#: What is wrong with a disk, a right or a path, and not with this program: one line, no traceback.
STORAGE_ERRORS = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)


class LazyGroup(click.Group):
    """A click group whose commands are imported on use, and whose expected errors are one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        adapt()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {quote(args[0])}, {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise told(error) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise told(error) from None
        except ConfigurationError as error:
            _leave(ctx, EXIT_USAGE, str(error))
        except FleetError as error:
            _leave(ctx, EXIT_FAILURE, str(error))
        except OSError as error:
            if error.errno not in STORAGE_ERRORS:
                raise
            _leave(ctx, EXIT_FAILURE, f"expected to read and write {error.filename or 'files'}, got: {error.strerror}")
        except (KeyboardInterrupt, click.Abort):
            _tell_what_runs_on()
            _leave(ctx, EXIT_INTERRUPTED, "interrupted")
        except click.exceptions.Exit as end:
            if end.exit_code == EXIT_INTERRUPTED:
                _tell_what_runs_on()
            raise


def _tell_what_runs_on() -> None:
    """After Ctrl-C: a private Redis outlives the command that started it, or found it."""
    from fleet.store.private.service import still_running  # a command that has used none has not imported it

    if left := still_running():
        say(left)


def _leave(ctx: click.Context, code: int, message: str) -> NoReturn:
    say(message)
    ctx.exit(code)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failure, 2 wrong usage or configuration, 3 tasks wait for somebody, 130 interrupted.",
)
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="State folder, instead of .fleet.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The fleet.toml to use.")
@click.version_option(package_name="celery-fleet", prog_name="fleet")
def main(home: Path | None, config: Path | None) -> None:
    """Run 100 to 10,000 LLM bots on Celery and Redis."""
    core_dumps.begin_closed()
    if home:
        os.environ["FLEET_HOME"] = str(home.absolute())
    if config:
        os.environ["FLEET_CONFIG"] = str(config.absolute())


if __name__ == "__main__":
    main(prog_name="fleet")
