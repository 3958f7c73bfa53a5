"""`fleet ask`, as a user types it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from fleet.cli.main import main


def invoke(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["ask", *words], input=text, prog_name="fleet")


def test_the_answer_goes_to_stdout_and_who_agreed_to_stderr() -> None:
    found = invoke("What is 6 * 7?", "-n", "5", "--pool", "quick")
    assert (found.exit_code, found.stdout) == (0, "42\n")
    assert "3 of 3 votes agree · asked 3 of 5: the rest could not change it · $0." in found.stderr


def test_dissent_is_shown_and_stdin_is_read() -> None:
    found = invoke("-", "-n", "30", "--pool", "torn", "--stop", "shadow", text="Tea or coffee?\n")
    assert found.stdout == "Tea.\n"
    assert "of 30 votes agree" in found.stderr
    assert "adaptive would have heard" in found.stderr
    assert " for coffee: torn-0" in found.stderr


def test_json_has_the_whole_outcome() -> None:
    found = json.loads(invoke("What is 6 * 7?", "-n", "3", "--pool", "quick", "--count-by", r"\d+", "--json").stdout)
    assert (found["answer"], found["counted"], found["asked"], len(found["members"])) == ("42", "42", 2, 2)


def test_no_outcome_is_exit_code_1_and_says_why() -> None:
    found = invoke("What is 6 * 7?", "-n", "2", "--pool", "never", "--deadline-s", "1")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "failed: NoQuorum: expected 2 answers within 1 s, got 0: 2 had no answer in time" in found.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "expected a PROMPT, or --advise"),
        (("--advise", "x"), 2, "expected no PROMPT"),
        (("x", "--pool", "nowhere"), 2, "--pool: expected one of"),
        (("x", "--aggregate", "best"), 1, "aggregate: expected majority, weighted, judge"),
        (("x", "-n", "0"), 2, "-n: expected a number"),
    ],
)
def test_wrong_use_is_told(words: tuple[str, ...], code: int, told: str) -> None:
    found = invoke(*words)
    assert found.exit_code == code
    assert told in found.stderr


def test_advice_is_given_by_the_record() -> None:
    unknown = invoke("--advise", "--kind", "unheard")
    assert unknown.exit_code == 0
    assert "0 asks of kind unheard" in unknown.stdout
    assert "too little is known: expected 50 asks of kind unheard" in unknown.stdout
    for _ in range(3):
        words = ("-n", "4", "--pool", "torn", "--kind", "drinks", "--right", "tea", "--stop", "shadow")
        assert invoke("Tea or coffee?", *words).exit_code == 0
    known = json.loads(invoke("--advise", "--kind", "drinks", "--json").stdout)
    assert (known["asks"], known["graded"]) == (3, 3)
    assert {way["name"] for way in known["ways"]} >= {"majority", "weighted", "one answer of torn/torn-1"}
    assert 0 <= known["adaptive_saves"] < 1
