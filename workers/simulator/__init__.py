"""The provider that ships with Fleet: a real HTTP server that limits, fails, answers and keeps a ledger like one.

`SimulatorOptions` says how it behaves; `workers.simulator.server.Simulator` runs it inside an event loop, `python -m
workers.simulator` (or `fleet simulator`) as a process. It knows nothing of Celery, Redis or the rest of the fleet.
"""

from workers.simulator.options import SimulatorOptions

__all__ = ["SimulatorOptions"]
