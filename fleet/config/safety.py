"""What fleet.toml says about the processes that hold keys."""

from __future__ import annotations

from pydantic import Field

from fleet.config.sections import Section


class SafetySettings(Section):
    """How well the processes that hold keys are closed."""

    core_dumps: bool = Field(
        False,
        description="Let workers and Flower be dumped and traced (gdb, py-spy) by their user: keys and prompts show. "
        "Its variable opens the commands of `fleet` and the supervisor of `fleet up` too.",
    )
