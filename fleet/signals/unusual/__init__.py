"""Unusual use of a key or a bot: far more than is usual for it, for longer than a burst lasts (docs/keys.md)."""
