"""What Flower is told in fleet.toml: where it listens, and what its Fleet tab shows."""

from __future__ import annotations

from pydantic import Field

from fleet.config.sections import Section


class FlowerSettings(Section):
    """The dashboard. Its password is generated into `.fleet/flower.password`."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(5555, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    user: str = Field("fleet", description="User name of the basic authentication.")


class DashboardSettings(Section):
    """The Fleet tab inside Flower."""

    show_texts: bool = Field(
        False, description="Show a task's prompt and answer to who has logged in, as far as Redis still has them."
    )
