"""Keeps frameworks from telling their vendors what bots do, and says so where an operator wants them to.

OpenAI's Agents SDK sends prompts and answers to its vendor unless it is told not to, whoever the model's provider is.
LangSmith does so only where a variable of its own says so. Both read their variables at the first run, so this comes
before a user's module is imported. What a user's code switches on by itself stays on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping

#: By which OpenAI's Agents SDK is told not to report. `0`, set where the workers start, lets it.
AGENTS_SDK = "OPENAI_AGENTS_DISABLE_TRACING"
#: By which LangSmith is told to report: the first that is set decides.
LANGSMITH = ("LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING", "LANGCHAIN_TRACING")
_QUIET = ("1", "true")
_REPORTS = "true"

logger = logging.getLogger(__name__)
_said: set[str] = set()


def quieten() -> None:
    """Switch off what frameworks report, unless the operator has asked for it: that is said in the log, once."""
    os.environ.setdefault(AGENTS_SDK, "1")
    for name in reporting(os.environ):
        if name not in _said:
            _said.add(name)
            logger.warning("framework_reports variable=%s hint=prompts_and_answers_go_to_its_vendor", name)


def reporting(variables: MutableMapping[str, str]) -> list[str]:
    """Return the variables by which an operator lets frameworks report to their vendors."""
    asked = [AGENTS_SDK] if variables.get(AGENTS_SDK, "1").lower() not in _QUIET else []
    decides = next((name for name in LANGSMITH if variables.get(name)), None)
    return asked if decides is None or variables[decides] != _REPORTS else [*asked, decides]
