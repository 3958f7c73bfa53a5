"""The limiter's Lua scripts: each is one command, put behind the lines of `limit.lua` that all share."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fleet.store.client import Script

_HERE = Path(__file__).parent
_SHARED = (_HERE / "limit.lua").read_text(encoding="utf-8")
_LEARNING = f"{_SHARED}\n{(_HERE / 'learning.lua').read_text(encoding='utf-8')}"


def _script(name: str, *, shared: str = _SHARED) -> Script:
    text = f"{shared}\n{(_HERE / name).read_text(encoding='utf-8')}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ACQUIRE = _script("acquire.lua")
SETTLE = _script("settle.lua")
PENALISE = _script("penalise.lua", shared=_LEARNING)
OBSERVE = _script("observe.lua", shared=_LEARNING)
SET = _script("set.lua")
FORGET = _script("forget.lua")
SHOW = _script("show.lua")
