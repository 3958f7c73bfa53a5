"""Who may act: names and patterns."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.config import load
from fleet.dashboard.handlers import HERE
from fleet.dashboard.operators import is_operator, user_of
from fleet.errors import ConfigurationError


@pytest.mark.parametrize(
    ("user", "operators", "may"),
    [
        ("anna", None, True),
        (None, None, False),
        ("anna", ("anna",), True),
        ("annabel", ("anna",), False),
        ("Anna", ("anna",), False),
        ("ben@ops.example.com", ("anna", "*@ops.example.com"), True),
        ("ben@ops.example.com.evil.org", ("*@ops.example.com",), False),
        ("anna", (), False),
        (None, ("*",), False),
        ("", ("anna",), False),
    ],
)
def test_who_may_act_is_named_by_name_or_pattern(
    user: str | None, operators: tuple[str, ...] | None, may: bool
) -> None:
    assert is_operator(user, operators) is may


@pytest.mark.parametrize(
    ("space", "login", "user"),
    [
        (" ", "anna:secret", "anna"),
        ("\t", "anna:secret", "anna"),
        (" \t ", "anna:se:cret", "anna"),
        (" ", ":secret", None),
    ],
)
def test_who_has_logged_in_is_read_as_flower_reads_it(space: str, login: str, user: str | None) -> None:
    header = f"Basic{space}{base64.b64encode(login.encode()).decode()}"
    handler: Any = SimpleNamespace(
        current_user=True,
        application=SimpleNamespace(options=SimpleNamespace(basic_auth=[login])),
        request=SimpleNamespace(headers={"Authorization": header}),
    )
    assert user_of(handler) == user


def test_an_operator_without_a_name_is_refused_at_the_start() -> None:
    assert load(dashboard={"operators": [" anna "]}).dashboard.operators == ("anna",)
    assert load(dashboard={"operators": "*@ops.example.com"}).dashboard.operators == ("*@ops.example.com",)
    with pytest.raises(ConfigurationError, match=r"dashboard\.operators\.1: string should have at least 1 character"):
        load(dashboard={"operators": ["anna", " "]})


def test_the_page_says_of_every_button_that_it_locks_why_as_the_server_says_it() -> None:
    scripts = {path.name: path.read_text() for path in (HERE / "static").glob("*.js")}
    assert [name for name, text in scripts.items() if "has logged in may" in text or "Log in to" in text] == []
    locking = [name for name, text in scripts.items() if "mayAct ?" in text or 'mayAct !== "yes"' in text]
    assert len(locking) >= 5
    assert [name for name in locking if "dataset.whyNot" not in scripts[name]] == []
