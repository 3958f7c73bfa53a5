"""Wrong settings are refused where they are read, with what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import load
from fleet.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"")
    monkeypatch.setenv("FLEET_CONFIG", str(path))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xff", "expected TOML in UTF-8, got 'utf-8' codec can't decode"),
        (b"[pools.a", "expected TOML in UTF-8, got Expected ']'"),
        (
            b"[pools.a.persona]\ntemperatures = [9.0]",
            "temperatures.0: input should be less than or equal to 2, got 9.0",
        ),
        (
            b"[pools.a.persona]\ncontext_windows_tokens = [1]",
            "context_windows_tokens.0: input should be greater than or equal to 64, got 1",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_words(file: Path, text: bytes, expected: str) -> None:
    file.write_bytes(text)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert expected in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "FLEET_REDIS_URL",
            "redis://x",
            "unknown variable, the nearest known one is `FLEET_REDIS__URL`",
        ),
        ("FLEET_WORKER_SLOT", "3", "the nearest known one is `FLEET_WORKER__SLOTS`"),
        ("FLEET_REDIS", "redis://x", "one key with two underscores before it, such as FLEET_REDIS__URL"),
    ],
)
def test_a_wrong_variable_leads_to_the_right_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert expected in str(caught.value)
