"""Fleet's app for workers of tests that wait for a lease: 2 s, not 10. Never imported by the tests' own process.

Its name for `celery -A`: `QUICK_LEASES` of `worker_process.py`.
"""

from __future__ import annotations

from fleet.engine.transport import leases

leases.LEASE_S, leases.RENEW_EVERY_S = 2, 0.5

from fleet import app  # noqa: E402  (its settings are made of the lease above)

__all__ = ["app"]
