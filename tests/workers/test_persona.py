from __future__ import annotations

import pytest

from fleet.config import PersonaSettings, PoolSettings, Settings
from fleet.errors import ConfigurationError
from workers.context import count_tokens
from workers.persona import SYSTEM_PROMPTS, bot_name, bot_of, make_bot


def test_archetypes_temperatures_and_windows_go_round_in_turn():
    personas = [make_bot("research", index, PersonaSettings()).persona for index in range(1, 6)]
    assert [p.archetype for p in personas] == ["analytical", "creative", "conservative", "exploratory", "analytical"]
    assert [p.temperature for p in personas] == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert [p.context_window_tokens for p in personas] == [2048, 4096, 8192, 2048, 4096]


def test_eighty_four_bots_in_a_row_differ_and_the_next_one_repeats_the_first():
    personas = [make_bot("research", index, PersonaSettings()).persona for index in range(1, 86)]
    kinds = {(p.archetype, p.temperature, p.context_window_tokens) for p in personas}
    assert len(kinds) == 84 and personas[84] == personas[0]


def test_a_bot_is_the_same_whenever_it_is_made():
    assert make_bot("research", 17, PersonaSettings()) == make_bot("research", 17, PersonaSettings())


def test_the_pool_can_override_archetypes_temperatures_windows_and_prompts():
    settings = PersonaSettings(
        archetypes=("creative",),
        temperatures=(1.0,),
        context_windows_tokens=(512,),
        system_prompts={"creative": "Sing."},
    )
    persona = make_bot("research", 3, settings).persona
    assert (persona.system_prompt, persona.temperature, persona.context_window_tokens) == ("Sing.", 1.0, 512)


def test_every_archetype_has_a_short_prompt_of_its_own():
    assert len(set(SYSTEM_PROMPTS.values())) == 4
    assert all(count_tokens(prompt) < 100 for prompt in SYSTEM_PROMPTS.values())


@pytest.mark.parametrize("index", [1, 42, 100, 1234])
def test_a_bot_is_found_by_its_name(index: int):
    settings = Settings(pools={"deep-research": PoolSettings(bots=2000)})
    bot = bot_of(bot_name("deep-research", index), settings)
    assert bot == make_bot("deep-research", index, PersonaSettings())


@pytest.mark.parametrize(
    "name", ["research-000", "research-011", "research-1", "other-001", "research", "", "research-x"]
)
def test_an_unknown_bot_is_an_error_that_names_the_known_ones(name: str):
    settings = Settings(pools={"research": PoolSettings(bots=10)})
    with pytest.raises(ConfigurationError, match=r"expected a bot of .*research-001 to research-010.*, got"):
        bot_of(name, settings)
