"""What fleet.toml says about telling a chat or a pager what is wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.config.sections import Section


class AlertSettings(Section):
    """Messages to a webhook about what is wrong. Sent by Flower's process, or by `fleet alerts watch`."""

    webhook_env: str | None = Field(
        None, min_length=1, description="Environment variable that holds the address. Not set: nothing is sent."
    )
    body: Literal["text", "json"] = Field(
        "text",
        description='`text`: `{"text": ...}`, as Slack, Mattermost and Google Chat take it. `json`: each finding too.',
    )
    lowest: Literal["critical", "warning", "info"] = Field("warning", description="The least severe that is told.")
    repeat_s: float = Field(4 * 3600, ge=60, description="Seconds after which a finding that lasts is told again.")
    most_per_hour: int = Field(20, ge=1, le=3600, description="Messages an hour at most; what comes then waits.")
    link: str | None = Field(None, description="Address of the Fleet tab, as people open it; ends each message.")
