"""The simulator lets voices go bad in three ways, says which and what they did, and fails itself when told to."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.every import every
from tests.workers.simulator.running import Reply, chat, running, send

VOICES = [("You are one of many.", round(0.3 + number / 100, 2)) for number in range(20)]


def ask(url: str, temperature: float, prompt: str) -> str:
    messages = [{"role": "system", "content": VOICES[0][0]}, {"role": "user", "content": prompt}]
    text: str = chat(url, messages=messages, temperature=temperature).json["choices"][0]["message"]["content"]
    return text


def hear_all(url: str) -> None:
    for _, temperature in VOICES:
        ask(url, temperature, "Who is there?")


def switch(url: str, query: str) -> dict[str, Any]:
    reply = send(url, f"/bad?{query}", method="POST")
    assert reply.status == 200, reply.json
    return reply.json


def bad_by_temperature(url: str) -> dict[float, dict[str, Any]]:
    return {one["temperature"]: one for one in send(url, "/bad").json["bad"]}


def test_numbers_and_shares_of_the_voices_heard_go_bad_and_the_seed_says_which() -> None:
    with running() as url:
        hear_all(url)
        told = switch(url, "errors=3&avoidance=0.2&slow=1&seed=5")
        kinds = [one["kind"] for one in told["bad"]]
        assert {kind: kinds.count(kind) for kind in kinds} == {"errors": 3, "avoidance": 4, "slow": 1}
        assert len({one["temperature"] for one in told["bad"]}) == 8
        assert switch(url, "errors=3&avoidance=0.2&slow=1&seed=5") == told
        assert switch(url, "errors=3&avoidance=0.2&slow=1&seed=6") != told
        assert len(switch(url, "errors=99")["bad"]) == switch(url, "errors=1.0")["voices"] == 20


@pytest.mark.parametrize("answers", ["empty", "refusal", "garbage"])
def test_a_bot_with_errors_spoils_its_share_of_answers_and_a_retry_gets_a_chance_of_its_own(answers: str) -> None:
    with running() as url:
        hear_all(url)
        switch(url, f"errors=1&error_share=0.5&answers={answers}")
        (bad,) = bad_by_temperature(url)
        good = next(temperature for _, temperature in VOICES if temperature != bad)
        right = [f"What is {number} + 1?" for number in range(40)]
        wrong = [n for n, prompt in enumerate(right) if ask(url, bad, prompt) != str(n + 1)]
        assert every(ask(url, good, prompt) == str(n + 1) for n, prompt in enumerate(right))
        assert 8 <= len(wrong) <= 32
        assert bad_by_temperature(url)[bad] == {
            "kind": "errors", "temperature": bad, "calls": 40, "tasks": 40, "spoilt": len(wrong)
        }  # fmt: skip
        again = [n for n in wrong if ask(url, bad, right[n]) != str(n + 1)]
        assert 0 < len(again) < len(wrong)
        now = bad_by_temperature(url)[bad]
        assert (now["calls"], now["tasks"], now["spoilt"]) == (40 + len(wrong), 40, len(wrong) + len(again))


def test_a_bot_that_avoids_says_a_word_or_two_at_once_and_a_slow_one_says_it_all_but_late() -> None:
    def seconds(url: str, temperature: float, prompt: str) -> float:
        started = time.monotonic()
        said[temperature] = ask(url, temperature, prompt)
        return time.monotonic() - started

    said: dict[float, str] = {}
    with running(latency_ms=40) as url:
        hear_all(url)
        switch(url, "avoidance=1&slow=1&pace=8")
        kinds = {one["kind"]: temperature for temperature, one in bad_by_temperature(url).items()}
        good = next(temperature for _, temperature in VOICES if temperature not in kinds.values())
        lazy, slow = kinds["avoidance"], kinds["slow"]
        took = {one: min(seconds(url, one, f"Tell me of {n}") for n in range(6)) for one in (lazy, good, slow)}
        assert took[lazy] < took[good] < took[slow]
        assert len(said[lazy]) < 20 < len(said[slow])
        assert bad_by_temperature(url)[slow]["spoilt"] == 0
        assert bad_by_temperature(url)[lazy]["spoilt"] == 6


def test_bots_recover_when_it_is_switched_off() -> None:
    with running() as url:
        hear_all(url)
        switch(url, "avoidance=1.0")
        assert ask(url, 0.3, "What is 1 + 1?") != "2"
        assert switch(url, "")["bad"] == []
        assert ask(url, 0.3, "What is 1 + 1?") == "2"


@pytest.mark.parametrize(
    "query", ["errors=1.5", "slow=-1", "errors=x", "error_share=2", "pace=0", "pace=nan", "answers=rude", "nonsense=1"]
)
def test_a_mode_that_makes_no_sense_is_refused(query: str) -> None:
    with running() as url:
        reply = send(url, f"/bad?{query}", method="POST")
    assert reply.status == 400
    assert "expected" in reply.json["error"]["message"]


def test_the_provider_itself_fails_while_it_is_told_to() -> None:
    def failures(query: str) -> Reply:
        return send(url, f"/failures?{query}", method="POST")

    with running() as url:
        assert failures("error_rate=1").json == {
            "error_rate": 1.0, "hang_rate": 0.0, "cut_rate": 0.0, "flex_busy_rate": 0.0,
        }  # fmt: skip
        assert chat(url).status >= 500
        assert failures("error_rate=0").status == 200
        assert chat(url).status == 200
        for nonsense in ("error_rate=2", "error_rate=0.6&hang_rate=0.6", "rpm=5", "error_rate=x"):
            assert failures(nonsense).status == 400
        assert chat(url).status == 200
