"""Let an agent of pydantic-ai do a bot's work. In this folder: `fleet up -d`, then `python triage.py`.

`fleet.toml` names it: `agent = "triage:agent"`. It has a tool, and its output is the task's answer, as JSON.
"""

from pydantic import BaseModel
from pydantic_ai import Agent

MAILS = {"Ada": ["My parcel is late.", "It has come, thank you."]}


class Triage(BaseModel):
    """Who answers a mail."""

    team: str
    is_urgent: bool


agent = Agent(output_type=Triage, instructions="Say which team answers this mail: billing, delivery or repairs.")


@agent.tool_plain
def past_mails(customer: str) -> list[str]:
    """Return what a customer has written before."""
    return MAILS.get(customer, [])


if __name__ == "__main__":
    from fleet import submit_task

    result = submit_task.delay("Ada writes: my printer is on fire.", pool="triage").get(timeout=60)
    triage = Triage.model_validate_json(result.answer)
    print(result.status, "after", result.attempts, "calls:", type(triage.is_urgent).__name__)
