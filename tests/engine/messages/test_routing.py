"""`queue`, `routing_key`, `exchange`, `priority` and `task_routes`: a pool and a priority, or a refusal in words."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Exchange, Queue

from fleet import config
from fleet.engine.app import app
from fleet.engine.messages import queues, routing
from fleet.engine.settings import celery_settings
from fleet.errors import InvalidTask
from fleet.models import BotTask, Priority
from fleet.store import keys
from fleet.store.client import connect

SETTINGS = config.load()


def asked(fields: dict[str, Any] | None = None, *, route: dict[str, Any] | None = None, **options: Any) -> BotTask:
    return routing.asked(BotTask(prompt="hi", **(fields or {})), options, route or {}, SETTINGS)


@pytest.mark.parametrize(
    ("number", "priority"),
    [*enumerate(Priority), *((step, Priority.BULK) for step in range(5, 10)), ("7", Priority.BULK)],
)
def test_celerys_numbers_are_priorities_0_to_4_and_bulk_below(number: object, priority: Priority) -> None:
    assert queues.priority_of(number) == priority
    assert asked(priority=number).priority == priority


@pytest.mark.parametrize("number", [-1, 10, 2.5, True, "soon", None, float("nan")])
def test_what_is_no_priority_of_celerys_is_none(number: object) -> None:
    assert queues.priority_of(number) is None


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "fleet.writing"},
        {"queue": "writing"},
        {"queue": Queue("fleet.writing", Exchange("mine"))},
        {"routing_key": "fleet.writing"},
        {"exchange": "fleet.writing", "routing_key": "fleet.writing"},
        {"queue": "celery", "routing_key": "fleet.writing"},
    ],
)
def test_a_pools_queue_means_that_pool(options: dict[str, Any]) -> None:
    assert asked(**options).pool == asked({"pool": "writing"}, **options).pool == "writing"


def test_no_option_leaves_a_task_as_it_is_and_the_inbox_is_any_pool() -> None:
    task = BotTask(prompt="hi")
    assert routing.asked(task, {"queue": None, "priority": None, "countdown": 3}, {}, SETTINGS) is task
    assert asked(queue="celery").pool is None


@pytest.mark.parametrize(
    ("fields", "options", "words"),
    [
        ({"pool": "review"}, {"queue": "fleet.writing"}, r"^queue: expected 'fleet.review', .* got 'fleet.writing'"),
        ({}, {"queue": "fleet.writing", "routing_key": "fleet.review"}, r"^routing_key: expected 'fleet.writing'"),
        ({}, {"queue": "fleet.writng"}, r"^queue: 'fleet.writng' is no pool's queue, the nearest .* `fleet.writing`"),
        ({"priority": "high"}, {"priority": 3}, r"^priority: expected high \(1\), which the task says, got 3"),
        ({}, {"priority": 10}, r"^priority: expected 0 \(the most urgent\) to 9, got 10"),
    ],
)
def test_what_contradicts_the_task_is_refused_in_words(
    fields: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidTask, match=words):
        asked(fields, **options)


def test_a_route_is_for_what_neither_the_task_nor_an_option_says() -> None:
    route = {"queue": "fleet.writing", "priority": 4}
    assert (asked(route=route).pool, asked(route=route).priority) == ("writing", Priority.BULK)
    assert asked({"priority": "high"}, route=route).priority == Priority.HIGH
    assert asked(route=route, queue="fleet.review", priority=0).pool == "review"
    with pytest.raises(InvalidTask, match=r"^queue: expected 'fleet.review'"):
        asked({"pool": "review"}, route=route)


def test_a_plain_clients_message_gets_the_pool_of_its_queue_and_its_own_priority_unless_its_task_says_one() -> None:
    task = BotTask(prompt="hi")
    found = routing.delivered(task, "fleet.writing", 6, SETTINGS)
    assert (found.pool, found.priority) == ("writing", Priority.BULK)
    assert routing.delivered(task, "celery", 0, SETTINGS).priority == Priority.CRITICAL
    assert routing.delivered(BotTask(prompt="hi", priority="normal"), "celery", 0, SETTINGS).priority == Priority.NORMAL
    assert routing.delivered(task, None, None, SETTINGS) is task
    with pytest.raises(InvalidTask, match=r"^pool: expected 'writing', to which the queue 'fleet.writing' belongs"):
        routing.delivered(BotTask(prompt="hi", pool="review"), "fleet.writing", 2, SETTINGS)


@pytest.mark.usefixtures("fleet_env")
def test_apply_async_send_task_a_signature_and_a_route_queue_where_they_say(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    told = celery_settings()
    assert app.conf["broker_url"]  # read once before it is changed
    monkeypatch.setattr(app, "_told", told)
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    for name, value in told.items():
        monkeypatch.setitem(app.conf, name, value)

    def waiting(pool: str, priority: int) -> int:
        return int(connect(redis_url).llen(queues.list_key(keys.queue(pool), priority)))  # type: ignore[arg-type]

    submit_task.apply_async(("hi",), queue="fleet.writing", priority=7)
    app.send_task("fleet.submit_task", ["hi"], {"priority": "high"}, queue="writing")
    submit_task.s("hi").set(routing_key="fleet.writing", priority=0).apply_async()
    assert [waiting("writing", priority) for priority in Priority] == [1, 1, 0, 0, 1]
    app.conf.update(task_routes={"fleet.*": {"queue": "fleet.review", "priority": 3}})
    try:
        submit_task.delay("hi")
    finally:
        app.conf.update(task_routes=None)
    assert waiting("review", Priority.LOW) == 1
    with pytest.raises(InvalidTask, match=r"^queue: 'nonsense' is no pool's queue"):
        app.send_task("fleet.submit_task", ["hi"], queue="nonsense")
    assert not connect(redis_url).keys("*nonsense*")
