"""Where keys come from, and that no error shows one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import ProviderSettings, Settings
from fleet.errors import ConfigurationError, KeyMissing
from fleet.vault import Envelope, read_key, source_of

SECRET = "sk-secret-0123456789"


def with_provider(provider: ProviderSettings) -> Settings:
    return Settings(providers={"acme": provider})


def key_of(provider: ProviderSettings) -> str:
    return read_key("acme", with_provider(provider))


def from_file(path: Path) -> ProviderSettings:
    return ProviderSettings(kind="openai", api_key_file=path)


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def test_the_simulator_needs_no_key() -> None:
    assert key_of(ProviderSettings(kind="simulator")) == "simulator"


def test_a_key_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {SECRET}\n")
    assert key_of(ProviderSettings(kind="openai", api_key_env="MY_KEY")) == SECRET


def test_a_key_comes_from_a_file_of_its_owner(tmp_path: Path) -> None:
    assert key_of(from_file(key_file(tmp_path, f"{SECRET}\n"))) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"got mode {mode:04o}: run `chmod 600") as raised:
        key_of(from_file(key_file(tmp_path, SECRET, mode)))
    assert SECRET not in str(raised.value)


def test_no_source_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match='api_key_env = "ANTHROPIC_API_KEY"'):
        key_of(ProviderSettings(kind="anthropic"))


def test_an_unset_variable_an_absent_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="variable ABSENT_KEY, got nothing"):
        key_of(ProviderSettings(kind="openai", api_key_env="ABSENT_KEY"))
    with pytest.raises(ConfigurationError, match="No such file"):
        key_of(from_file(tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match="Is a directory"):
        key_of(from_file(tmp_path))


@pytest.mark.parametrize("text", ["", "\n", f"{SECRET}\nsecond", f"{SECRET} x", "ключ", f"{SECRET}\x07"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        key_of(from_file(key_file(tmp_path, text)))
    assert SECRET not in str(raised.value)


def test_a_mounted_secret_is_found_by_its_name_whoever_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ProviderSettings(kind="openai", api_key_secret="acme-key")
    with pytest.raises(KeyMissing, match=r"expected a file acme-key in .CREDENTIALS_DIRECTORY"):
        key_of(provider)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "acme-key").write_text(f"{SECRET}\n")
    (tmp_path / "acme-key").chmod(0o444)
    assert key_of(provider) == SECRET
    mark = source_of("acme", with_provider(provider)).mark()
    (tmp_path / "acme-key").unlink()
    (tmp_path / "acme-key").write_text("another")
    assert source_of("acme", with_provider(provider)).mark() != mark


def test_without_a_setting_the_key_is_that_of_the_encrypted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    local = ProviderSettings(kind="openai", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(KeyMissing, match="run `fleet keys add acme`"):
        key_of(ProviderSettings(kind="openai"))
    assert key_of(local) == ""
    Envelope(tmp_path / "home").add("acme", SECRET)
    assert key_of(ProviderSettings(kind="openai")) == SECRET
    assert key_of(local) == SECRET, "one that needs none gets one that was added for it"


def test_two_sources_of_one_key_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="got `api_key_env` and `api_key_vault`"):
        ProviderSettings(kind="openai", api_key_env="A", api_key_vault="a#b")
    with pytest.raises(ValueError, match="expected PATH#FIELD"):
        ProviderSettings(kind="openai", api_key_vault="fleet/openai")
