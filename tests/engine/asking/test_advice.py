"""What the record of a kind says: every way to ask, counted anew, and whether several bots pay."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from fleet.answers import Vote
from fleet.engine.asking.advice import ENOUGH, advise
from fleet.engine.asking.record import NOBODYS, PastAsk, counts_of, labelled, read


def record_of(asks: int, vote: Callable[[random.Random, str], str]) -> list[PastAsk]:
    """Three voters: `good` is right 7 in 10, `fair` and `other` as `vote` says."""
    draw, found = random.Random(1), []
    for _ in range(asks):
        good = "right" if draw.random() < 0.7 else f"g{draw.random()}"
        fair = vote(draw, "right")
        votes = [Vote("good", good), Vote("fair", fair), Vote("other", vote(draw, fair))]
        labels, right = labelled(votes, "right")
        found.append(PastAsk(sources=("good", "fair", "other"), labels=labels, right=right, n=3, asked=3))
    return found


def independent(draw: random.Random, _: str) -> str:
    return "right" if draw.random() < 0.65 else f"w{draw.random()}"


def test_voters_that_err_each_by_itself_pay() -> None:
    found = advise("sums", record_of(400, independent))
    assert found.says.startswith("it pays: ")
    assert found.ways[0].right > 0.75
    single = next(way for way in found.ways if way.name == "one answer of good")
    assert 0.65 < single.right < 0.75 and single.calls == 1


def test_voters_that_are_all_the_same_do_not() -> None:
    same = [
        PastAsk(sources=("a", "b", "c"), labels=(0, 0, 0), right=0 if n % 3 else NOBODYS, n=3, asked=3)
        for n in range(90)
    ]
    found = advise("sums", same)
    assert found.says.startswith("it does not pay: one answer of")
    assert found.ways[0].calls == 1
    assert found.agreement == 1


def test_with_few_known_answers_nothing_is_claimed() -> None:
    found = advise("sums", record_of(ENOUGH - 1, independent))
    assert found.says.startswith("too little is known")
    assert advise("sums", []).asks == 0
    ungraded = [PastAsk(sources=("a", "b"), labels=(0, 1), n=2, asked=2, adaptive=(2, True))]
    assert advise("sums", ungraded).adaptive_saves == 0


@given(keys=st.lists(st.sampled_from("xyz"), max_size=6), right=st.sampled_from(["x", "y", "none", None]))
def test_the_record_says_who_agreed_and_was_right_and_no_more(keys: list[str], right: str | None) -> None:
    votes = [Vote("m", key) for key in keys]
    labels, number = labelled(votes, right)
    kept = PastAsk(sources=("m",) * len(keys), labels=labels, right=number, n=6, asked=6)
    (again,) = read([json.dumps(kept.model_dump(mode="json", exclude_defaults=True)).encode()])
    assert again == kept
    for one, label in zip(keys, labels, strict=True):
        assert [key == one for key in keys] == [other == label for other in labels]
        assert right is None or (label == number) == (one == right)
    good, bad = counts_of([kept]).alone.get("m", (0, 0))
    assert good + bad == (0 if right is None else len(keys))


def test_rows_that_cannot_be_read_are_left_out() -> None:
    assert read([b"", b"{}", b'{"sources": 3}', b"\xff"]) == []
