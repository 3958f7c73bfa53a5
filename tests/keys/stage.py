"""Where the canaries go through: a Redis with a password that writes files, an API that quotes, workers, Flower."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.store.client import connect
from tests.keys.canaries import Canary
from tests.keys.echoing_api import EchoingApi, echoing_api
from tests.keys.surroundings import surroundings
from tests.redis_server import RedisServer
from tests.worker_process import WorkerProcess

#: Keys, which may lie nowhere at all: of the encrypted file, of a variable, of a tool's variable, of Redis.
SEALED = Canary("sealed key", 'kQ7xV2mZ-canary+of/the=file"and\\more%-9sTf4Lw8')
VARIABLE = Canary("key of a variable", "vN3bR8pK-canary+of/a=variable'<b>-6yHc1Jd5")
TOOL = Canary("key of a tool", "tW5gX1qM-canary+of/a=tool&amp-2zKe7Pn9")
PASSWORD = Canary("password of Redis", "rB4jD6sY-canary-of-redis-8uGa3Vx0")
KEYS = (SEALED, VARIABLE, TOOL, PASSWORD)
#: Words of a tenant, which lie where they must: queues, results, dead letters, files of his own.
PROMPT = Canary("prompt", 'pH9canaryPrompt "of" ünïcode \\ and/more 5Lq', is_whole=True)
ANSWER = Canary("answer", "aE2canaryAnswer-of-the-model 8Zw", is_whole=True)
ERROR = Canary("words of an exception", "xC6canaryError of a function 1Rt", is_whole=True)
METADATA = Canary("metadata", "mJ4canaryMetadata 3Yv", is_whole=True)
WORDS = (PROMPT, ANSWER, ERROR, METADATA)
TENANT = "canary-tenant"

#: Providers by their pool's name, each with its own breaker; what makes their API answer so stands in the prompt.
SEALED_POOLS = ("good", "odd401", "odd403", "odd429", "odd400", "odd500", "oddnothing")
_PROVIDER = """
[providers.{name}]
kind = "openai"
base_url = "{url}"
timeout_s = 1
{key}
[pools.{name}]
bots = 2
provider = "{name}"
model = "m"
{function}
"""
_REST = """
[tools.shop]
base_url = "{url}"
api_key_env = "CANARY_SHOP_KEY"
key_header = "X-Shop-Key"
timeout_s = 1
[tools.park]
base_url = "{url}"
api_key_env = "CANARY_SHOP_KEY"
key_query = "token"
timeout_s = 0.3
[bill]
export = "{folder}/calls.jsonl"
[signals]
traces = "{traces}"
metrics_port = {metrics}
[worker]
slots = 30
"""
#: Functions that fail, call a tool, and print where all threads stand and what exceptions hold.
_BOTS = """
import asyncio, faulthandler, io, time, traceback
from rich.console import Console
from rich.traceback import Traceback

async def raises(task, bot):
    await bot.chat(task.prompt)
    raise ValueError(f"{ERROR} at {task.prompt}")

async def stands(task, bot):
    from fleet.engine.process.wiring import PROCESS

    PROCESS.runtime.call_soon(time.sleep, 60)
    return await bot.chat(task.prompt)

async def shops(task, bot):
    async with bot.tool_client("shop") as shop:
        await shop.post("/orders", json={"item": "ask-400" if "ask-400" in task.prompt else "x"})
    return "ordered"

async def renders(task, bot):
    told = []
    async def park():
        async with bot.tool_client("park") as shop:
            await shop.post("/orders", json={"item": "ask-nothing"})

    for work in (bot.chat("ask-400"), bot.chat("ask-nothing"), park()):
        try:
            await asyncio.wait_for(work, 0.5)
        except Exception as error:
            rich = Console(file=io.StringIO(), width=200)
            rich.print(Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True,
                                                locals_max_length=None, locals_max_string=None))
            plain = traceback.TracebackException.from_exception(error, capture_locals=True)
            told += [rich.file.getvalue(), *plain.format()]
    with open("tracebacks.txt", "a") as file:
        file.write("".join(told))
        faulthandler.dump_traceback(file, all_threads=True)
    return "rendered"
"""


@dataclass
class Stage:
    """A fleet, its servers and its files.

    Args:
        folder: Of everything.
        server: Its Redis.
        api: Of all providers and of the tool.
        metrics_port: Where its worker tells figures.
    """

    folder: Path
    server: RedisServer
    api: EchoingApi
    metrics_port: int
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        return with_password(self.server.url)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        with connect(self.url, timeout_s=10) as client:
            yield client

    def start_worker(self, *options: str, env: dict[str, str] | None = None) -> WorkerProcess:
        self.workers.append(WorkerProcess(self.folder, *options, env=env))
        return self.workers[-1].wait_ready()

    def fleet(self, *words: str, stdin: str | None = None) -> str:
        """Run a command, and return all that it printed; whether it succeeds is not the question."""
        return CliRunner().invoke(main, words, input=stdin, prog_name="fleet").output


def with_password(url: str) -> str:
    """Return the URL of a server that asks for the password."""
    return url.replace("redis://", f"redis://:{PASSWORD.value}@")


@contextmanager
def staged() -> Iterator[Stage]:
    """Set the stage, and leave nothing of it behind."""
    from tests.ports import lasting_port

    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-keys-", ignore_cleanup_errors=True))
        )
        api = stack.enter_context(echoing_api(ANSWER.value))
        (redis_folder := folder / "redis").mkdir()
        server = RedisServer(redis_folder, "--appendonly", "yes", "--rdbcompression", "no")
        stack.callback(server.stop)
        with connect(server.url) as client:
            client.config_set("requirepass", PASSWORD.value)  # not on a command line, where it would be found
        stage = Stage(folder, server, api, lasting_port())
        keys = {"CANARY_KEY": VARIABLE.value, "CANARY_SHOP_KEY": TOOL.value}
        stack.enter_context(surroundings(folder, stage.url, stage.workers, **keys))
        _write(stage)
        yield stage


def _write(stage: Stage) -> None:
    rows = [_PROVIDER.format(name=name, url=stage.api.url, key="", function="") for name in SEALED_POOLS]
    for name, function in (
        ("variable", ""),
        ("raises", "raises"),
        ("shops", "shops"),
        ("renders", "renders"),
        ("stands", "stands"),
    ):
        rows.append(
            _PROVIDER.format(
                name=name, url=stage.api.url, key='api_key_env = "CANARY_KEY"' if name == "variable" else "",
                function=f'function = "canary_bots:{function}"' if function else "",
            )
        )  # fmt: skip
    traces = "file" if _has_traces() else "off"
    rows.append(_REST.format(url=stage.api.url, folder=stage.folder, traces=traces, metrics=stage.metrics_port))
    (stage.folder / "fleet.toml").write_text("".join(rows))
    (stage.folder / "canary_bots.py").write_text(f"ERROR = {ERROR.value!r}\n{_BOTS}")
    config.current.cache_clear()


def _has_traces() -> bool:
    try:
        import opentelemetry.sdk  # noqa: F401
    except ImportError:
        return False
    return True
