"""The simulator lets a share of the voices say one thing, until what is told to end it changes."""

from __future__ import annotations

import pytest

from tests.workers.simulator.running import Reply, chat, running, send

VOICES = [(f"You are bot {number}. You think. You speak.", round(0.3 + number / 100, 2)) for number in range(20)]


def ask(url: str, system: str, temperature: float, prompt: str = "Tell me about rain") -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    text: str = chat(url, messages=messages, temperature=temperature).json["choices"][0]["message"]["content"]
    return text


def switch(url: str, query: str) -> Reply:
    return send(url, f"/collapse?{query}", method="POST")


def collapsed(url: str, voices: list[tuple[str, float]]) -> int:
    """Return how many of the voices give the one answer just now."""
    before = send(url, "/collapse").json["answered"]
    for number, voice in enumerate(voices):
        ask(url, *voice, prompt=f"Tell me about subject {number}")
    return int(send(url, "/collapse").json["answered"]) - int(before)


def test_exactly_the_wanted_share_of_the_voices_heard_so_far_says_the_same_with_some_words_changed() -> None:
    with running() as url:
        assert collapsed(url, VOICES) == 0
        told = switch(url, "share=0.4&noise=0.05&seed=3").json
        assert (told["voices"], told["collapsed"]) == (20, 8)
        bad = [voice for voice in VOICES if voice[1] in told["temperatures"]]
        assert collapsed(url, VOICES) == collapsed(url, bad) == 8
        one, other = ask(url, *bad[0]).split(), ask(url, *bad[1]).split()
        assert one != other
        assert sum(a == b for a, b in zip(one, other, strict=True)) > 0.7 * len(one)
        switch(url, "share=0")
        assert collapsed(url, VOICES) == 0


@pytest.mark.parametrize(
    ("until", "ends"),
    [
        ("order", {"order", "persona", "temperature"}),
        ("persona", {"persona", "temperature"}),
        ("temperature", {"temperature"}),
    ],
)
def test_a_voice_recovers_with_the_change_that_ends_it_and_with_no_lesser_one(until: str, ends: set[str]) -> None:
    changes = {
        "order": lambda system, warmth: (" ".join(reversed(system.split())), warmth),
        "persona": lambda system, warmth: (f"{system} Be brief.", warmth),
        "temperature": lambda system, warmth: (system, warmth + 0.3),
    }
    with running() as url:
        collapsed(url, VOICES)
        switch(url, f"share=1&until={until}")
        for change, changed in changes.items():
            expected = 0 if change in ends else len(VOICES)
            assert collapsed(url, [changed(*voice) for voice in VOICES]) == expected, change


@pytest.mark.parametrize("query", ["share=2", "share=x", "until=never", "nonsense=1"])
def test_a_mode_that_makes_no_sense_is_refused(query: str) -> None:
    with running() as url:
        reply = switch(url, query)
    assert reply.status == 400
    assert "expected" in reply.json["error"]["message"]


def test_the_other_wire_has_voices_too() -> None:
    body = {"model": "m", "max_tokens": 400, "system": "You are one.", "messages": [{"role": "user", "content": "Hi"}]}
    version = {"anthropic-version": "2023-06-01"}
    with running() as url:
        send(url, "/v1/messages", body, **version)
        switch(url, "share=1")
        send(url, "/v1/messages", body, **version)
        assert send(url, "/collapse").json["answered"] == 1
