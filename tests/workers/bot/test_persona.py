from __future__ import annotations

import pytest

from fleet.config import PersonaSettings, PoolSettings, Settings
from fleet.errors import ConfigurationError
from fleet.models import Remedy, bot_name
from fleet.workers.bot.persona import FACETS, HIGHEST_RAISED, SYSTEM_PROMPTS, bot_of, make_bot, treated, worker_bot_of
from fleet.workers.context import count_tokens
from tests.every import every


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
    assert every(count_tokens(prompt) < 100 for prompt in SYSTEM_PROMPTS.values())


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


def under(rung: int, generation: int = 5, **settings):
    drawn = PersonaSettings(**settings)
    return treated(make_bot("research", 3, drawn), drawn, Remedy(rung=rung, generation=generation))


def test_each_rung_changes_one_thing_more_about_a_bot_and_never_its_name():
    before, first, second, third = make_bot("research", 3, PersonaSettings()), under(1), under(2), under(3)
    assert {before.name} == {first.name, second.name, third.name}
    assert first.persona.system_prompt != before.persona.system_prompt
    assert sorted(first.persona.system_prompt.split()) == sorted(before.persona.system_prompt.split())
    assert first.persona.temperature == second.persona.temperature == before.persona.temperature == 0.5
    assert second.persona.archetype != before.persona.archetype
    assert second.persona.system_prompt.endswith(FACETS)
    assert third.persona.system_prompt == second.persona.system_prompt
    assert third.persona.temperature == pytest.approx(0.8)


def test_a_remedy_gives_the_same_bot_everywhere_and_another_one_another():
    assert under(2) == under(2)
    assert len({under(2, generation).persona.system_prompt for generation in range(1, 40)}) > 20


def test_a_raised_temperature_has_an_end_and_a_hotter_persona_keeps_its_own():
    assert under(3, temperatures=(1.1,)).persona.temperature == HIGHEST_RAISED
    assert under(3, temperatures=(1.6,)).persona.temperature == 1.6


def test_models_go_round_so_that_no_archetype_and_no_facet_belongs_to_one():
    settings = PersonaSettings(models=("a", "b"))
    bots = [make_bot("research", index, settings) for index in range(1, 101)]
    assert [bot.persona.model for bot in bots].count("a") == 50
    assert len({(bot.persona.archetype, bot.persona.model) for bot in bots}) == 8
    assert make_bot("research", 1, PersonaSettings()).persona.model is None


def test_an_own_system_prompt_is_never_reordered_and_with_one_archetype_only_a_facet_is_added():
    own = {"archetypes": ("creative",), "system_prompts": {"creative": "First read. Then write."}}
    assert under(1, **own).persona.system_prompt == "First read. Then write."
    assert under(2, **own).persona.system_prompt.startswith("First read. Then write. ")


def test_a_bot_of_a_name_is_made_under_its_remedy():
    settings = Settings(pools={"research": PoolSettings(bots=3)})
    assert worker_bot_of("research-003", settings, Remedy(rung=2, generation=5)) == under(2)
