"""What `fleet doctor` says of scopes and delegations: what is set live, and what workers check signatures by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fleet.cli.setup.check import Check, fail, ok, warn
from fleet.config import Settings
from fleet.config.scopes import EVERYTHING
from fleet.errors import ConfigurationError, FleetError
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import state_url


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of scopes and delegations.

    Args:
        set_live: What keys serve by `fleet keys scope`, in words, by the key.
        trouble: Why signatures cannot be checked on this host; None: they can.
        has_seal: This host can seal what canvases send.
    """

    set_live: Mapping[str, str] = field(default_factory=dict)
    trouble: str | None = None
    has_seal: bool = True


def key_facts(settings: Settings) -> KeyFacts:
    """Look at Redis, and at this host where a pool is delegated."""
    from fleet.vault.delegations import root_keys, seal_secret
    from fleet.vault.key_scopes import read_scopes

    live, trouble, has_seal = {}, None, True
    try:
        url = state_url(settings)
        with store_errors(url), connect(url, timeout_s=settings.redis.socket_timeout_s) as client:
            live = {name: scope.told() for name, scope in read_scopes(client).items()}
    except FleetError:  # it is told of elsewhere
        pass
    if any(pool.delegated for pool in settings.pools.values()):
        try:
            root_keys(settings)
            has_seal = seal_secret(settings) is not None
        except ConfigurationError as error:
            trouble = str(error)
    return KeyFacts(live, trouble, has_seal)


def key_checks(settings: Settings, facts: KeyFacts) -> Iterator[Check]:
    """Yield a finding for each delegated pool, and for each scope that was set while the fleet runs."""
    from fleet.vault.key_scopes import configured_scopes

    for name in (name for name, pool in settings.pools.items() if pool.delegated):
        label = f"pool {name}: delegation"
        if facts.trouble is not None:
            yield fail(
                label, "workers of this host cannot check signatures, and leave its tasks waiting", facts.trouble
            )
        elif not facts.has_seal:
            advice = "Copy delegations.seal of the host that made the delegations, or set vault.seal_file."
            yield warn(label, "what a canvas sends to it from this host would be refused: there is no seal", advice)
        else:
            yield ok(label, "takes signed tasks only")
    configured = configured_scopes(settings)
    for name, told in facts.set_live.items():
        yield warn(
            f"key of {name}: other settings elsewhere",
            f"fleet.toml says {configured.get(name, EVERYTHING).told()}, but {told} holds: `fleet keys scope` was used",
            f"Write it into fleet.toml, or go back with `fleet keys scope {name} --reset`.",
        )
