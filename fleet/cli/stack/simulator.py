"""`fleet simulator`: the command of `fleet.workers.simulator`, under the name where users look for it."""

from fleet.workers.simulator.command import simulator

__all__ = ["simulator"]
