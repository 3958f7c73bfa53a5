"""`python -m fleet.cli.stack.worker -A fleet worker ...`: Celery's own `worker` command, without its other commands.

`celery` loads all of them before it runs one: a line editor for its shell, and Flower where it is installed. That is a
sixth of what a worker does until it is ready, and memory that it never gives back.
"""

from __future__ import annotations

import sys
from pathlib import Path

import celery
from celery.app.utils import find_app
from celery.bin.base import CLIContext
from celery.bin.worker import worker

#: What Fleet knows a `celery` command by, and what Celery runs anew with the same words at a SIGHUP.
_CELERY = str(Path(celery.__file__).with_name("__main__.py"))


def main() -> None:
    """Run the worker of `-A APP worker OPTIONS`, which `celery` would run with the same words."""
    _, option, name, command, *options = sys.argv
    if (option, command) != ("-A", "worker"):
        raise SystemExit(
            f"expected -A APP worker OPTIONS, got {' '.join(sys.argv[1:])}; use `celery` for other commands"
        )
    sys.argv[0] = _CELERY
    app = find_app(name)
    worker.params.extend(app.user_options.get("worker", []))
    context = CLIContext(app=app, no_color=False, workdir=None, quiet=False)
    worker.main(options, prog_name="celery worker", obj=context, auto_envvar_prefix="CELERY_WORKER")


if __name__ == "__main__":
    main()
