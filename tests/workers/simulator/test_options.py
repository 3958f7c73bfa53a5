"""Options out of range are errors that name the option."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.errors import ConfigurationError
from fleet.workers.simulator import SimulatorOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rpm": 0}, "rpm: expected at least 1, got 0"),
        ({"tpm": -5}, "tpm: expected at least 1, got -5"),
        ({"burst": 0.0}, "burst: expected a share above 0"),
        ({"burst": 1.5}, "burst: expected a share above 0"),
        ({"minute_s": 0.0}, "minute_s: expected more than 0 seconds"),
        ({"latency_ms": -1.0}, "latency_ms: expected 0 or more"),
        ({"latency_ms": float("nan")}, "latency_ms: expected a finite number, got nan"),
        ({"error_rate": 1.1}, "error_rate: expected a share from 0 to 1"),
        ({"hang_rate": -0.1}, "hang_rate: expected a share from 0 to 1"),
        ({"error_rate": 0.5, "hang_rate": 0.4, "cut_rate": 0.2}, "at most 1 together, got 1.1"),
        ({"loop_share": 1.5}, "loop_share: expected a share from 0 to 1"),
        ({"input_usd_per_mtok": -1.0}, "input_usd_per_mtok: expected 0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SimulatorOptions(**values)


def test_the_admin_token_is_not_shown() -> None:
    assert "right" not in repr(SimulatorOptions(admin_token="right"))
