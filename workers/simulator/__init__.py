"""The provider that ships with Fleet: a real HTTP server that limits, fails, answers and keeps a ledger like one.

`SimulatorOptions` says how it behaves; `server.Simulator` runs it inside an event loop, `fleet simulator` (or
`python -m fleet.workers.simulator`) as a process. It knows nothing of Celery, Redis or the rest of the fleet.
"""

from fleet.workers.simulator.options import SimulatorOptions

__all__ = ["SimulatorOptions"]
