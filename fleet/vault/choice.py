"""Which source a provider's key comes from, as fleet.toml says it."""

from __future__ import annotations

from fleet import config
from fleet.config import SIMULATOR, ProviderSettings, Settings, vendor_of
from fleet.vault.envelope import Envelope
from fleet.vault.sources import EnvelopeKey, FileKey, KeySource, MountedKey, NoKey, VariableKey

#: Variable that each vendor's own tools read: what the error message proposes.
_USUAL_VARIABLE = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


def envelope_of(settings: Settings) -> Envelope:
    """Return the encrypted file of this host."""
    vault = settings.vault
    return Envelope(config.home_path(), vault.key_file, passphrase_file=vault.passphrase_file)


def source_of(name: str, settings: Settings, model: str = "") -> KeySource:
    """Return the source of a provider's key: the one that its table names, else the encrypted file.

    Args:
        name: The provider's name under [providers].
        settings: Everything.
        model: What it is asked for.
    """
    provider = settings.provider_named(name)
    if provider.api_key_env:
        return VariableKey(provider.api_key_env)
    if provider.api_key_file:
        return FileKey(provider.api_key_file)
    if provider.api_key_secret:
        return MountedKey(provider.api_key_secret)
    if provider.api_key_vault:
        from fleet.vault.kv import KvKey

        return KvKey.of(provider.api_key_vault, settings.vault)
    usual = _USUAL_VARIABLE.get(provider.kind) or f"{vendor_of(model) or 'vendor'}_API_KEY".upper().replace("-", "_")
    return EnvelopeKey(name, envelope_of(settings), _needless(provider, model), usual, provider.kind)


def _needless(provider: ProviderSettings, model: str) -> NoKey | None:
    """Return what serves without a key: the simulator's word, or nothing where no key is needed; None: one is.

    A server on this host or a private network needs none: then it is empty, and no key is sent. It is empty, too, for
    a model whose SDK reads its cloud's own variables and files.
    """
    if provider.kind == "simulator":
        return NoKey(SIMULATOR)
    return None if provider.needs_key_for(model) else NoKey()


def read_key(name: str, settings: Settings, model: str = "") -> str:
    """Return the key of a provider, read now; empty where none is needed.

    Args:
        name: Its name under [providers].
        settings: Everything.
        model: What it is asked for.

    Raises:
        KeyMissing: When its source gives no usable key. Never quotes the key.
    """
    return source_of(name, settings, model).current().value
