"""How `redis.prefix` comes before every key of `keys.py`: its functions are replaced by those that put it there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import FunctionType
from typing import Any

#: Celery puts an underscore behind a prefix that ends with none of these.
CELERY_ENDS = ":_-."


def plain_builders(names: Mapping[str, Any], *, besides: Collection[str]) -> dict[str, FunctionType]:
    """Return the public functions of a module or package, reading each other in a space of their own without a prefix.

    Args:
        names: The module's names.
        besides: Functions that build no key.
    """
    space = dict(names)
    functions = {
        name: value
        for name, value in names.items()
        if isinstance(value, FunctionType) and f"{value.__module__}.".startswith(f"{names['__name__']}.")
        and not name.startswith("_") and name not in besides
    }  # fmt: skip
    for name, function in functions.items():
        space[name] = FunctionType(function.__code__, space, name, function.__defaults__, function.__closure__)
        space[name].__kwdefaults__ = function.__kwdefaults__
    return {name: space[name] for name in functions}


def prefixed(
    builders: Mapping[str, Callable[..., Any]], prefix: str, *, of_celery: Collection[str]
) -> dict[str, Callable[..., Any]]:
    """Return the builders with the prefix put before what each builds: a key, or a tuple of keys.

    Args:
        builders: As `plain_builders` returned them.
        prefix: Empty: the builders as they are.
        of_celery: Those of keys that Celery names itself.
    """
    if not prefix:
        return dict(builders)
    joint = "" if prefix[-1] in CELERY_ENDS else "_"
    return {name: _behind(prefix + joint * (name in of_celery), build) for name, build in builders.items()}


def _behind(prefix: str, build: Callable[..., Any]) -> Callable[..., Any]:
    def builder(*args: Any, **kwargs: Any) -> Any:
        built = build(*args, **kwargs)
        return prefix + built if isinstance(built, str) else type(built)(*(prefix + key for key in built))

    return builder
