"""`fleet simulator`: the command of `workers.simulator`, under the name where users look for it."""

from workers.simulator.command import simulator

__all__ = ["simulator"]
