"""One HTTP request about a batch, over the session of its provider's adapter. Never repeats any.

What a refusal means: `refusals.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import pydantic_core
from yarl import URL

from fleet.errors import ProviderUnavailable
from fleet.usage import Usage
from fleet.workers.providers.base import HttpProvider
from fleet.workers.providers.batches.refusals import RefusedBatch, meaning_of
from fleet.workers.providers.usage import read_told_usage

#: Seconds for one request; an upload of a hundred MB is among them.
TIMEOUT_S = 120.0
#: Largest output that is read, in bytes: what a job of ours can come to.
MAX_OUTPUT_BYTES = 1024 * 1024 * 1024


class BatchHttp:
    """Requests under one key.

    Args:
        provider: Its adapter.
        key: Returns the key as it is now.
    """

    def __init__(self, provider: HttpProvider, key: Any) -> None:
        self._provider, self._key = provider, key
        self.host = provider.host

    async def send(
        self, method: str, path: str, *, data: Any = None, is_json: bool = True, missing_ok: bool = False,
        bodies: Sequence[bytes] = (),
    ) -> bytes:  # fmt: skip
        """Send one request; return the answer's body, empty for a 404 where that is no error.

        Args:
            method: Of the request.
            path: Below the root of the API, with its query.
            data: Body.
            is_json: It is JSON, and not a form.
            missing_ok: What is gone need not be there.
            bodies: Requests of a batch that it carries.

        Raises:
            FleetError: As `Provider.complete`.
        """
        provider, key = self._provider, self._key()
        headers = dict(provider._headers(key))
        if not is_json:
            headers.pop("Content-Type", None)
        url = URL(f"{provider._root}{path}", encoded=True)
        try:
            async with provider._open().request(
                method, url, data=data, headers=headers, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                allow_redirects=False,
            ) as response:  # fmt: skip
                raw, status, told = await response.read(), response.status, response.headers
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise provider._failure(TIMEOUT_S, error) from error
        if status == 404 and missing_ok:
            return b""
        if not 200 <= status < 300:
            raise meaning_of(RefusedBatch(self.host, status, raw, told), key=key, bodies=bodies)
        return raw

    async def json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Send one request; return its answer, a JSON object."""
        raw = await self.send(method, path, **more)
        if not raw and more.get("missing_ok"):
            return {}
        return self.object_of(raw)

    def object_of(self, raw: bytes) -> dict[str, Any]:
        """Return the JSON object that a text is.

        Raises:
            ProviderUnavailable: It is none.
        """
        try:
            told = pydantic_core.from_json(raw)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ProviderUnavailable(f"{self.host}: expected JSON, got {len(raw)} bytes of something else")
        return told


def usage_of(body: Mapping[str, Any]) -> Usage:
    """Return what an answer says that it used; nothing where it does not say."""
    return read_told_usage(body.get("usage")) or Usage()
