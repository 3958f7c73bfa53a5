"""What proxies and servers in front of models say about a wrong key, a wrong model and their own troubles.

LiteLLM, OpenRouter, Portkey, Cloudflare, Kong, one-api, vLLM, llama.cpp, TGI, Ollama, LM Studio and the vendors behind
them answer with a 400 or a 500 where others send a 401 or a 404: there the words decide. What they say is in
`proxies.jsonl` beside this, with what is meant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import BadRequest, FleetError, KeyRejected, KeySpent, NotServed, ProviderUnavailable, RateLimited
from tests.workers.providers.test_verdict import verdict

#: What is meant -> its errors, and whose fault they are (None: not looked at).
MEANT: dict[str, tuple[tuple[type[FleetError], ...], str | None]] = {
    "key": ((KeyRejected,), "key"),
    "model": ((NotServed,), "configuration"),
    "money": ((KeySpent,), "key"),
    "configuration": ((KeyRejected, KeySpent, NotServed), None),
    "passes": ((ProviderUnavailable,), "provider"),
    "rate": ((RateLimited,), "provider"),
    "prompt": ((BadRequest,), "prompt"),
    "own": ((BadRequest,), "unknown"),
}
ROWS = [json.loads(line) for line in Path(__file__).with_name("proxies.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['meant']}-{row['status']}-{str(row['body'])[:60]}")
def test_whatever_status_it_comes_with_a_wrong_key_or_model_waits_and_only_its_own_fails_a_task(
    row: dict[str, Any],
) -> None:
    body = row["body"]
    error = verdict(row["status"], body.encode() if isinstance(body, str) else body)
    errors, blame = MEANT[row["meant"]]
    assert type(error) in errors and error.blame == (blame or error.blame), str(error)
