"""python -m benchmarks.submit: how fast a producer queues tasks, beside Celery's own ways in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import click
from celery import Celery

from benchmarks.bench import print_table, private_home


def _prompts(count: int) -> Iterator[str]:
    return (f"What is {number} + {number % 7}? Answer with the number only." for number in range(count))


def _rate(count: int, submit: Callable[[], object]) -> float:
    started = time.perf_counter()
    submit()
    return count / (time.perf_counter() - started)


@click.command()
@click.option("--tasks", default=20_000, show_default=True, help="Tasks for the quick ways; a tenth for the slow ones.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; the table shows their median.")
def main(tasks: int, rounds: int) -> None:
    """Measure producers against an embedded Redis."""
    with private_home():
        from fleet import config
        from fleet.engine.messages.producer import submit_many
        from fleet.engine.tasks import submit_task
        from fleet.store.client import connect
        from fleet.store.private.embedded import broker_url

        url = broker_url(config.current())
        redis = connect(url, timeout_s=30)
        stock = Celery("stock", broker=url)

        @stock.task(name="noop")
        def noop(prompt: str) -> None:
            """Do nothing: only queueing is measured."""

        few = tasks // 10

        def one_by_one() -> None:
            for prompt in _prompts(few):
                noop.apply_async((prompt,))

        def in_batches() -> None:
            with stock.amqp.Producer(stock.connection()) as producer:
                for prompt in _prompts(few):
                    noop.apply_async((prompt,), producer=producer)

        def delay() -> None:
            for prompt in _prompts(few):
                submit_task.delay(prompt, pool="research")

        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "stock Celery: apply_async": (few, one_by_one),
            "stock Celery: apply_async, one producer": (few, in_batches),
            "fleet: submit_task.delay": (few, delay),
            "fleet: submit_many, pool named": (
                tasks, lambda: list(submit_many({"prompt": p, "pool": "research"} for p in _prompts(tasks)))),
            "fleet: submit_many, least-loaded pool": (tasks, lambda: list(submit_many(_prompts(tasks)))),
            "fleet: submit_many, idempotency keys": (
                tasks,
                lambda: list(submit_many(_prompts(tasks), idempotency_keys=map(str, range(tasks)))),
            ),
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (count, submit) in ways.items():
                rates[name].append(_rate(count, submit))
                redis.flushall()
    median = {name: statistics.median(values) for name, values in rates.items()}
    base = median["stock Celery: apply_async"]
    rows = [[name, f"{rate:,.0f}", f"{rate / base:.1f}x"] for name, rate in median.items()]
    print_table(f"Queued tasks per second, median of {rounds} rounds", ["way", "tasks/s", "ratio"], rows)


if __name__ == "__main__":
    main()
