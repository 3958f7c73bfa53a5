"""Which source a provider's key comes from, as fleet.toml says it."""

from __future__ import annotations

from fleet import config
from fleet.config import KEY_LABEL, SIMULATOR, KeySettings, ProviderSettings, Settings, ToolSettings, vendor_of
from fleet.vault.book import account_of
from fleet.vault.envelope import Envelope
from fleet.vault.sources import EnvelopeKey, FileKey, KeySource, MountedKey, NoKey, VariableKey

#: Variable that each vendor's own tools read: what the error message proposes.
_USUAL_VARIABLE = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


def envelope_of(settings: Settings) -> Envelope:
    """Return the encrypted file of this host."""
    vault = settings.vault
    return Envelope(config.home_path(), vault.key_file, passphrase_file=vault.passphrase_file)


def source_of(name: str, settings: Settings, model: str = "", label: str = KEY_LABEL) -> KeySource:
    """Return the source of a provider's key: the one that its table names, else the encrypted file.

    Args:
        name: The provider's name under [providers].
        settings: Everything.
        model: What it is asked for.
        label: Of the key, where there are several.
    """
    provider = settings.provider_named(name)
    if provider.exchange is not None:
        from fleet.vault.exchange import ExchangeKey

        return ExchangeKey(name, provider.exchange)
    named = named_source(provider.key_at(label), settings)
    if named is not None:
        return named
    usual = _USUAL_VARIABLE.get(provider.kind) or f"{vendor_of(model) or 'vendor'}_API_KEY".upper().replace("-", "_")
    needless = _needless(provider, model) if label == KEY_LABEL else None
    return EnvelopeKey(account_of(name, label), envelope_of(settings), needless, usual, provider.kind)


def named_source(key: KeySettings | ToolSettings, settings: Settings) -> KeySource | None:
    """Return the source that a table names; None: it names none."""
    if key.api_key_env:
        return VariableKey(key.api_key_env)
    if key.api_key_file:
        return FileKey(key.api_key_file)
    if key.api_key_secret:
        return MountedKey(key.api_key_secret)
    if key.api_key_vault:
        from fleet.vault.kv import KvKey

        return KvKey.of(key.api_key_vault, settings.vault)
    return None


def tool_source_of(name: str, settings: Settings) -> KeySource:
    """Return the source of a tool's key; where its table names none, no key is sent."""
    return named_source(settings.tools[name], settings) or NoKey()


def _needless(provider: ProviderSettings, model: str) -> NoKey | None:
    """Return what serves without a key: the simulator's word, or nothing where no key is needed; None: one is.

    A server on this host or a private network needs none: then it is empty, and no key is sent. It is empty, too, for
    a model whose SDK reads its cloud's own variables and files.
    """
    if provider.kind == "simulator":
        return NoKey(SIMULATOR)
    return None if provider.needs_key_for(model) else NoKey()


def read_key(name: str, settings: Settings, model: str = "", label: str = KEY_LABEL) -> str:
    """Return the key of a provider, read now; empty where none is needed.

    Args:
        name: Its name under [providers].
        settings: Everything.
        model: What it is asked for.
        label: Of the key, where there are several.

    Raises:
        KeyMissing: When its source gives no usable key. Never quotes the key.
    """
    return source_of(name, settings, model, label).current().value
