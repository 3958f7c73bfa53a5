"""The table of `python -m tests.keys --check`: one line a scenario. A new one is one more line."""

from __future__ import annotations

from tests.keys import anomaly, attacked, canary, forgotten, rotation
from tests.keys.figures import Row

ROWS = (
    Row("canary", canary.measure),
    Row("rotation", rotation.measure),
    Row("rotation_vault", rotation.measure_vault),
    Row("rotation_file", rotation.measure_file),
    Row("revoke", rotation.measure_revoke),
    Row("away", rotation.measure_away),
    Row("forgotten", forgotten.measure),
    Row("widened", attacked.measure_widened),
    Row("unsigned", attacked.measure_unsigned),
    Row("alarm", anomaly.measure_alarms),
)
