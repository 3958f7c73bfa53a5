"""Whatever a server sends: a typed outcome, never a crash, and never the key or the prompt in it."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import Blame, FleetError, Parks
from fleet.models import TaskError
from fleet.workers.calls import Completion
from fleet.workers.judge import judge
from fleet.workers.providers.problem import read_problem
from fleet.workers.providers.verdict import error_of
from tests.every import every
from tests.workers.providers.raw_server import KEY, call, provider, raw_server, response

PROMPT = "My bank account is DE89-3704-0044,\nand the code word is “Rumpelstiltskin”"
#: Letters and digits in a row that may be chance.
BY_CHANCE = 12

ECHOES = st.sampled_from(
    (
        PROMPT,
        PROMPT.upper(),
        repr(PROMPT),
        json.dumps(PROMPT),
        PROMPT[11:40],
        f"near '{PROMPT[20:]}'",
        KEY,
        KEY[3:],
        KEY[:12],
    )
)
WORDS = st.sampled_from(
    ("rate_limit_exceeded", "insufficient_quota", "RESOURCE_EXHAUSTED", "error", "content_filter", "try again in 20ms",
     "model not found", "resets on 2026-12-01 at 00:00 UTC", "billing", "{", '{"error": {"code": 429}}', "429", "stop")
)  # fmt: skip
NAMES = st.sampled_from(
    ("error", "errors", "message", "detail", "code", "type", "status", "param", "choices", "details", "metadata", "raw",
     "retryDelay", "reset_at", "loc", "msg", "usage", "content", "finish_reason", "stop_reason", "base_resp", "headers",
     "prompt_tokens", "promptFeedback")
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | WORDS
    | ECHOES
    | st.builds("{} {}".format, WORDS, ECHOES)
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
HEADERS = st.dictionaries(
    st.sampled_from(
        ("retry-after", "retry-after-ms", "x-should-retry", "rate_limit_type", "date", "x-ratelimit-reset-requests",
         "x-ratelimit-limit-requests", "anthropic-ratelimit-tokens-reset")
    ),
    st.sampled_from(("", "7", "-1", "1e999", "nan", "true", "false", "max_parallel_requests", "2026-12-01T00:00:00Z",
                     "Tue, 01 Dec 2026 00:00:00 GMT", "6m0s", "9" * 400, KEY)),
)  # fmt: skip


def as_bytes(value: Any, shape: str) -> bytes:
    text = json.dumps(value)
    return {
        "json": text,
        "string": json.dumps(text),
        "stream": f"data: {text}\n\nevent: error\ndata: {text}\n\ndata: [DONE]\n\n",
        "page": f"<html><title>{text}</title></html>",
        "text": text[1:],
        "python": f"Error code: 429 - {value!r}",
    }[shape].encode("utf-8", "replace")


BODIES = st.binary(max_size=200) | st.builds(
    as_bytes, VALUES, st.sampled_from(("json", "string", "stream", "page", "text", "python"))
)


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def check(error: FleetError) -> None:
    """A typed error of a house, that quotes nothing of what was sent."""
    assert error.blame in get_args(Blame) and error.parks in get_args(Parks)
    assert error.passes_at is None or (error.passes and math.isfinite(error.passes_at))
    assert type(error).__name__ == TaskError.of(error).type and len(str(error)) <= 1000
    shown, sent = letters(str(error)), letters(PROMPT)
    assert every(sent[i : i + BY_CHANCE] not in shown for i in range(len(sent) - BY_CHANCE + 1)), str(error)
    assert "012345" not in shown and "secret" not in shown, str(error)


@settings(max_examples=300)
@given(status=st.integers(200, 599), body=BODIES, headers=HEADERS, now_s=st.sampled_from((0.0, 1.8e9)))
def test_any_refusal_is_one_typed_error_without_the_prompt_or_the_key(
    status: int, body: bytes, headers: dict[str, str], now_s: float
) -> None:
    problem = read_problem(body, secrets=(KEY,), texts=[PROMPT])
    check(error_of("127.0.0.1", status, problem, headers, now_s=now_s))


@settings(max_examples=60)
@given(body=BODIES, kind=st.sampled_from(("openai", "anthropic")))
def test_any_body_of_a_200_is_an_answer_or_one_typed_error(body: bytes, kind: str) -> None:
    async def main() -> Completion | FleetError:
        async with raw_server(response(body)) as server, provider(server.url, kind) as adapter:
            try:
                return await adapter.complete(call(PROMPT), api_key=KEY)
            except FleetError as error:
                return error

    outcome = asyncio.run(main())
    if isinstance(outcome, Completion):
        judged = judge(outcome.text, outcome.finish_reason)
        assert judged.error is None or KEY not in str(judged.error)
    else:
        check(outcome)
