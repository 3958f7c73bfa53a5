"""What Flower is told in fleet.toml: where it listens, who may act from it, and what its Fleet tab shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from fleet.config.sections import Section

#: A user's name, or a pattern of names with * and ?.
Operator = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


def _one(value: object) -> object:
    """Take a single name for a list of one."""
    return [value] if isinstance(value, str) else value


class FlowerSettings(Section):
    """The dashboard. Its password is generated into `.fleet/flower.password`."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(5555, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    user: str = Field("fleet", description="User name of the basic authentication.")


class DashboardSettings(Section):
    """Who may act from the Fleet tab and from Flower's own pages and API, and what who logs in sees there."""

    operators: Annotated[tuple[Operator, ...] | None, BeforeValidator(_one)] = Field(
        None,
        description="Users who may act, by name or pattern (`*@ops.example.com`). Not set: all that log in. []: none.",
    )
    show_texts: bool = Field(
        False,
        description="Show a task's prompt and answer in the Fleet tab to those who may act, as far as Redis still has "
        "them. Either way Flower's own `/api/task/result/ID` gives those the answer.",
    )
