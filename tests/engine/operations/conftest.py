"""Fixtures of the operations' tests: those of the signals, which the overview shows."""

from tests.signals.conftest import client, working_fleet

__all__ = ["client", "working_fleet"]
