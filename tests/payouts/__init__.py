"""Tests of payouts; what signs is loaded first, by the one module that keeps it from changing the process."""

import fleet.payouts.keyfiles  # noqa: F401
