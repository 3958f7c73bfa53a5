from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet import config
from fleet.config import Settings, ToolSettings, models_among, tool_of
from fleet.errors import ConfigurationError

URL = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"base_url": "api.example.com"}, "expected http(s)://HOST"),
        ({"base_url": "https://me:pw@api.example.com"}, "keys belong in `api_key_env`"),
        ({"base_url": f"{URL}?key=1"}, "keys belong in `api_key_env`"),
        ({"base_url": URL, "key_header": "X-Key"}, "expected `api_key_env` or `api_key_file`"),
        ({"base_url": URL, "api_key_env": "K", "key_header": "X", "key_query": "k"}, "got both"),
        ({"base_url": URL, "api_key_env": "K", "key_header": "Host"}, "key_header"),
        ({"base_url": URL, "usd_per_day": 1.0}, "expected `usd_per_call` with it"),
    ],
)
def test_wrong_table_is_refused_and_told_what_is_wrong(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told.replace("(", r"\(").replace(")", r"\)")):
        ToolSettings.model_validate(table)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"providers": {"tools": {"kind": "openai"}}}, "providers.tools: expected another name"),
        ({"tools": {"a/b": {"base_url": URL}}}, "tools: expected a name"),
        ({"limits": {"tools/shop": {"rpm": 1}}}, r"in \[tools.shop\]"),
    ],
)
def test_names_that_could_not_be_told_apart_are_refused(tables: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config.load(**tables)


def test_limit_of_a_tool_is_among_those_in_use_and_no_model() -> None:
    settings = Settings(tools={"shop": ToolSettings(base_url=URL, rpm=7)})
    assert settings.limits_in_use["tools/shop"].rpm == 7
    assert (tool_of("tools/shop/default"), tool_of("openai/tools")) == ("shop", "")
    assert "tools/shop" not in models_among(settings.limits_in_use)
