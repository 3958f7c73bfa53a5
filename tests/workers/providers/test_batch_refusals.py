"""What is shown, and understood, of a vendor's refusal of a batch: never a prompt, whoever's."""

from __future__ import annotations

import json

from fleet.errors import BadRequest, FleetError, KeySpent
from fleet.workers.providers.batches.refusals import RefusedBatch, meaning_of, word_of

PROMPT = "Tell Jane Doe of Elm Street that her credit balance is too low to access the API."


def meant(message: str, *prompts: str) -> FleetError:
    bodies = [json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode() for prompt in prompts]
    raw = json.dumps({"error": {"type": "invalid_request_error", "message": message}}).encode()
    return meaning_of(RefusedBatch("api", 400, raw, {}), key="a-secret-key", bodies=bodies)


def test_no_sentence_of_a_refusal_is_shown_not_even_one_that_was_not_sent_with_this_request() -> None:
    for error in (meant(f"Invalid: {PROMPT}"), meant(f"Invalid: {PROMPT}", PROMPT), meant("Bad a-secret-key")):
        assert str(error).startswith("api answered 400 (invalid_request_error)")
        assert "Jane" not in str(error) and "secret" not in str(error)


def test_a_sentence_is_understood_unless_it_may_be_a_prompts() -> None:
    told = "Your credit balance is too low to access the API."
    assert isinstance(meant(told, "What is 2 + 2?"), KeySpent)
    assert isinstance(meant(f"Invalid: {PROMPT}", PROMPT), BadRequest)
    assert isinstance(meant(told, "x" * 300_000), BadRequest), "more than can be compared"


def test_a_code_is_shown_when_it_is_one_short_word() -> None:
    assert (word_of("token_limit_exceeded"), word_of("What is it"), word_of(["a"])) == (
        "token_limit_exceeded", "unnamed", "unnamed",
    )  # fmt: skip
