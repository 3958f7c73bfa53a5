"""A module `fleet` of somebody else's in the working folder, which Celery would take for ours.

`celery -A fleet` looks into the working folder first, so nothing of ours that runs there can be trusted to be ours.
"""

from __future__ import annotations

from pathlib import Path

from fleet.errors import ConfigurationError

#: The folder of this package.
OURS = Path(__file__).resolve().parents[1]


def shadow() -> Path | None:
    """Return what is found as `fleet` in the working folder, or None when that is nothing, or this very package."""
    candidates = (Path.cwd() / "fleet" / "__init__.py", Path.cwd() / "fleet.py")  # Python's order
    found = next((path for path in candidates if path.is_file()), None)
    if found is None or found.resolve() == OURS / "__init__.py":
        return None
    return found.parent if found.name == "__init__.py" else found


def refuse_shadow() -> None:
    """Refuse to start workers in a folder that has a `fleet` of its own.

    Raises:
        ConfigurationError: With its place and what to do.
    """
    found = shadow()
    if found is not None:
        raise ConfigurationError(
            f"expected no module `fleet` but ours in the working folder, got {found}: `celery -A fleet` would run it "
            f"instead of {OURS}; rename it, or work in another folder"
        )
