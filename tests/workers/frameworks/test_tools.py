"""Tool APIs in bot functions: a real HTTP server, the real agent and gateway; the limiter and breakers are told."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2
import pytest

from fleet.config import Settings, ToolSettings
from fleet.entries import Entry
from fleet.errors import (
    BadRequest,
    BotFunctionFailed,
    ConfigurationError,
    DeadlineExceeded,
    KeyMissing,
    OutOfTries,
    TooExpensive,
    ToolFailed,
    Waits,
)
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.vault import Keyring
from fleet.waits import Ruling, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.bot.raw_asker import RawAsker
from fleet.workers.frameworks import tool_desk
from fleet.workers.frameworks.tools import ToolApis
from tests.every import every
from tests.tool_server import Reply, ToolServer, tool_server
from tests.workers.fakes import OTHERS_DID_WELL, FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, settings_of

HERE = "tests.workers.frameworks.test_tools"
LIMIT = "tools/search/default"
KEY = "tool-secret-0123456789"
PICOS = 10**12
seen: dict[str, Any] = {}


@dataclass
class ListedBill:
    """A bill that is a list."""

    entries: list[Entry] = field(default_factory=list)
    voided: list[str] = field(default_factory=list)

    def opened(self, asked: Entry) -> str:
        return "note"

    def enter(self, entry: Entry) -> None:
        self.entries.append(entry)

    def void(self, limit: str, ticket: str) -> None:
        self.voided.append(limit)


@dataclass
class ListedErrors:
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)

    def failed(self, pool: str, bot: str, tool: str, error: str) -> None:
        self.failures.append((pool, bot, tool, error))


@dataclass
class Case:
    """What a run of a function with tools left behind."""

    limiter: FakeLimiter = field(default_factory=FakeLimiter)
    breakers: FakeBreakers = field(default_factory=FakeBreakers)
    bill: ListedBill = field(default_factory=ListedBill)
    errors: ListedErrors = field(default_factory=ListedErrors)

    def run(
        self, function: str, task: BotTask | None = None, *, share: float = 0.0, **tools: dict[str, Any]
    ) -> Outcome:
        return asyncio.run(self._run(function, task or BotTask(prompt="look it up"), share, tools))

    @staticmethod
    def ring(tools: dict[str, ToolSettings]) -> Keyring:
        return Keyring(Settings(tools=tools))

    async def _run(
        self, function: str, task: BotTask, share: float, tools: dict[str, dict[str, Any]], task_id: str = "t-1"
    ) -> Outcome:
        gateway = a_gateway(self.limiter, FakeProvider(["hello"]), breakers=self.breakers, bill=self.bill)
        settings = {name: ToolSettings.model_validate(one) for name, one in tools.items()}
        keys = {name: await self.ring(settings).hold_tool(name) for name in settings}
        desk = ToolApis(settings, keys, roads=gateway.roads, limiter=self.limiter, bill=self.bill, errors=self.errors)
        agent = Agent(gateway, settings_of(function=f"{HERE}:{function}"), share=lambda: share, tools=desk)
        try:
            return await agent.run(task, a_bot(), task_id=task_id, before=NOTHING_BEFORE)
        finally:
            await agent.close()
            await desk.close()

    @property
    def limits(self) -> list[str]:
        return [grant.limit for grant in self.limiter.granted]


async def looks_up(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search", kind=task.metadata.get("kind")) as client:
        response = await client.request(
            task.metadata.get("method", "GET"), task.metadata.get("path", "/items"),
            headers=task.metadata.get("headers"), content=task.metadata.get("content"),
        )  # fmt: skip
        seen["response"] = response
        return f"{response.status_code} {response.text}"


def looks_up_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    with bot.tool_client("search", kind=task.metadata.get("kind")) as client:
        seen["client"] = type(client)
        return str(client.get("/items", params={"q": "a b"}).text)


async def insists(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search", kind="httpx") as client:
        response = await client.request(task.metadata.get("method", "GET"), task.metadata.get("path", "/items"))
        try:
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise RuntimeError("the tool does not work") from error
        return str(response.text)


async def copes(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search", kind="httpx") as client:
        try:
            await client.post("/orders", content=b"{}")
        except httpx.TransportError as error:
            return f"coped with {type(error).__name__}"
        return "was answered"


async def follows(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search") as client:
        return str((await client.get("/away", follow_redirects=True)).text)


async def asks_two(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search") as client:
        await client.get("/one")
        return str((await client.get("/two")).text)


async def posts_twice(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search") as client:
        await client.post("/one")
        return str((await client.post("/two")).text)


async def books(task: BotTask, bot: LoopBotContext) -> str:
    """Book what the task says, `times` each, in an order of its own, with a header of its own if it says one."""
    async with bot.tool_client("search", kind=task.metadata.get("kind")) as client:
        for flight in task.metadata["flights"]:
            for _ in range(task.metadata.get("times", 1)):
                await client.post("/flights", json={"to": flight}, headers=task.metadata.get("headers"))
    return "booked"


async def insists_on_booking(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.tool_client("search", kind="httpx") as client:
        for _ in range(4):
            with suppress(httpx.TransportError):
                await client.post("/flights", json={"to": "Oslo"})
    return "booked"


async def misspells(task: BotTask, bot: LoopBotContext) -> str:
    bot.tool_client("serach")
    return "never"


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with tool_server() as made:
        yield made


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("SEARCH_KEY", KEY)
    return {"api_key_env": "SEARCH_KEY"}


def task_of(**metadata: Any) -> BotTask:
    return BotTask(prompt="look it up", metadata=metadata)


def ok(outcome: Outcome) -> str:
    assert outcome.error is None, outcome.error
    return outcome.answer or ""


class TestClients:
    @pytest.mark.parametrize("kind", ["httpx", "httpx2", None])
    def test_async_function_gets_a_client_of_either_library(self, server: ToolServer, kind: str | None) -> None:
        case = Case()
        assert ok(case.run("looks_up", task_of(kind=kind), search={"base_url": f"{server.url}/v1"})) == "200 fine"
        assert [(one.method, one.path) for one in server.asked] == [("GET", "/v1/items")]
        assert case.limits == [LIMIT] and case.limiter.is_settled_once

    @pytest.mark.parametrize(("kind", "client"), [("httpx", httpx.Client), ("httpx2", httpx2.Client)])
    def test_function_in_a_thread_gets_a_blocking_one(self, server: ToolServer, kind: str, client: type) -> None:
        assert ok(Case().run("looks_up_in_a_thread", task_of(kind=kind), search={"base_url": server.url})) == "fine"
        assert seen["client"] is client
        assert server.asked[0].path == "/items?q=a+b"

    def test_grant_is_asked_for_who_the_task_is(self, server: ToolServer) -> None:
        case = Case()
        ok(case.run("looks_up", BotTask(prompt="x", tenant="acme", kind="k"), search={"base_url": server.url}))
        (caller,) = case.limiter.callers
        assert (caller.bot, caller.tenant, caller.kind) == (a_bot().name, "acme", "k")

    def test_packed_answer_is_unpacked(self, server: ToolServer) -> None:
        server.replies = [Reply(body=gzip.compress(b"unpacked"), headers={"Content-Encoding": "gzip"})]
        assert ok(Case().run("looks_up", search={"base_url": server.url})) == "200 unpacked"

    def test_too_large_answer_is_refused_packed_or_not(self, server: ToolServer) -> None:
        bomb = gzip.compress(b"0" * 30_000_000)
        for reply in (Reply(body=b"0" * 2_000_000), Reply(body=bomb, headers={"Content-Encoding": "gzip"})):
            server.replies = [reply]
            error = Case().run("looks_up", search={"base_url": server.url, "max_answer_mb": 1}).error
            assert isinstance(error, BadRequest) and "max_answer_mb in [tools.search]" in str(error)

    def test_unknown_tool_makes_the_task_wait_and_names_the_nearest(self, server: ToolServer) -> None:
        outcome = Case().run("misspells", share=1.0, search={"base_url": server.url})
        assert outcome.parking is not None
        wait = outcome.parking.wait
        assert (wait.cause, wait.about, wait.is_everyones) == ("configuration", "[tools.serach]", False)
        assert "search" in wait.told


class TestKeys:
    @pytest.mark.parametrize(
        ("how", "name", "text"),
        [
            ({}, "authorization", f"Bearer {KEY}"),
            ({"key_scheme": "Token"}, "authorization", f"Token {KEY}"),
            ({"key_header": "X-Api-Key"}, "x-api-key", KEY),
        ],
    )
    def test_key_is_sent_as_the_tool_wants_it_and_the_functions_own_is_dropped(
        self, server: ToolServer, key: dict[str, str], how: dict[str, str], name: str, text: str
    ) -> None:
        own = {"Authorization": "Bearer mine", "X-Api-Key": "mine", "X-Other": "stays"}
        ok(Case().run("looks_up", task_of(headers=own), search={"base_url": server.url, **key, **how}))
        headers = server.asked[0].headers
        assert headers[name] == text and headers["x-other"] == "stays"
        assert "Bearer mine" not in headers.values()

    def test_key_in_the_query_replaces_the_functions_own(self, server: ToolServer, key: dict[str, str]) -> None:
        task = task_of(path="/items?api_key=mine&q=1")
        ok(Case().run("looks_up", task, search={"base_url": server.url, **key, "key_query": "api_key"}))
        assert server.asked[0].path == f"/items?q=1&api_key={KEY}"

    def test_without_a_key_the_functions_own_goes_through(self, server: ToolServer) -> None:
        ok(Case().run("looks_up", task_of(headers={"Authorization": "mine"}), search={"base_url": server.url}))
        assert server.asked[0].headers["authorization"] == "mine"

    def test_key_is_nowhere_in_the_functions_hands(
        self, server: ToolServer, key: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.reply = lambda asked: Reply(
            body=f"you sent {asked.headers} {asked.path}".encode(), headers={"X-Echo": f"{asked.headers}"}
        )
        for how in ({}, {"key_query": "k"}):
            answer = ok(Case().run("looks_up", search={"base_url": server.url, **key, **how}))
            response = seen["response"]
            assert "***" in answer
            told = [
                answer,
                str(response.headers),
                str(response.request.headers),
                str(response.request.url),
                caplog.text,
            ]
            assert every(KEY not in text for text in told)

    def test_missing_key_makes_the_task_wait_before_anything_is_sent(self, server: ToolServer) -> None:
        outcome = Case().run("looks_up", share=1.0, search={"base_url": server.url, "api_key_env": "NOT_SET"})
        assert outcome.parking is not None and outcome.parking.wait.cause == "key"
        assert outcome.parking.wait.about == LIMIT and not outcome.parking.wait.is_everyones
        assert server.asked == []

    def test_other_host_gets_neither_key_nor_request(self, server: ToolServer, key: dict[str, str]) -> None:
        with tool_server() as other:
            server.replies = [Reply(302, headers={"Location": f"{other.url}/stolen"})]
            error = Case().run("follows", search={"base_url": server.url, **key}).error
            assert other.asked == []
            error_at_once = (
                Case().run("looks_up", task_of(path=f"{other.url}/items"), search={"base_url": server.url, **key}).error
            )
            assert other.asked == []
        assert isinstance(error, BotFunctionFailed) and isinstance(error_at_once, BotFunctionFailed)

    def test_redirect_on_its_own_host_is_followed_with_a_grant_each(
        self, server: ToolServer, key: dict[str, str]
    ) -> None:
        case = Case()
        server.replies = [Reply(302, headers={"Location": "/there"}), Reply(body=b"arrived")]
        assert ok(case.run("follows", search={"base_url": server.url, **key})) == "arrived"
        assert [one.path for one in server.asked] == ["/away", "/there"] and len(case.limits) == 2
        assert every(one.headers["authorization"] == f"Bearer {KEY}" for one in server.asked)


class TestFailures:
    def test_429_holds_the_fleet_and_is_waited_out(self, server: ToolServer) -> None:
        case = Case()
        server.replies = [Reply(429, headers={"Retry-After": "7"}), Reply()]
        assert ok(case.run("looks_up", task_of(method="POST"), search={"base_url": server.url})) == "200 fine"
        assert case.limiter.holds == [(LIMIT, 7.0)] and case.breakers.failures == []

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    @pytest.mark.parametrize("bad", [Reply(503), Reply(500), Reply(408), Reply(breaks=True)])
    def test_failure_of_what_may_be_repeated_is_waited_out(self, server: ToolServer, method: str, bad: Reply) -> None:
        case = Case()
        server.replies = [bad, bad, Reply()]
        assert ok(case.run("looks_up", task_of(method=method), search={"base_url": server.url})) == "200 fine"
        assert len(server.asked) == 3 and len(case.breakers.failures) == 2
        assert case.limiter.is_settled_once

    def test_failed_post_is_not_repeated_and_its_answer_is_the_functions(self, server: ToolServer) -> None:
        server.replies = [Reply(500, b"half done"), Reply()]
        assert ok(Case().run("looks_up", task_of(method="POST"), search={"base_url": server.url})) == "500 half done"
        assert len(server.asked) == 1

    def test_post_goes_over_a_connection_of_its_own(self, server: ToolServer) -> None:
        """An idle one may be closed by the server just as it is used again, and nobody would know what became of it."""
        server.replies = [Reply(headers={"Keep-Alive": "timeout=5"})]
        ok(Case().run("posts_twice", search={"base_url": server.url}))
        assert server.connections == 2
        server.connections = 0
        ok(Case().run("asks_two", search={"base_url": server.url}))
        assert server.connections == 1

    def test_cut_post_is_not_repeated_and_reaches_the_function_as_its_library_says(self, server: ToolServer) -> None:
        server.replies = [Reply(breaks=True), Reply()]
        assert ok(Case().run("copes", search={"base_url": server.url})) == "coped with ReadError"
        assert len(server.asked) == 1

    @pytest.mark.parametrize("bad", [Reply(502), Reply(breaks=True)])
    def test_function_that_lets_it_through_is_not_to_blame(self, server: ToolServer, bad: Reply) -> None:
        server.replies = [bad]
        outcome = Case().run("insists", task_of(method="POST"), search={"base_url": server.url})
        assert isinstance(outcome.error, ToolFailed) and outcome.error.blame == "provider"
        assert outcome.fault is None and "retry_unsafe = true in [tools.search]" in str(outcome.error)

    @pytest.mark.parametrize(("headers", "tool"), [({"Idempotency-Key": "1"}, {}), ({}, {"retry_unsafe": True})])
    def test_post_that_may_be_repeated_is(
        self, server: ToolServer, headers: dict[str, str], tool: dict[str, bool]
    ) -> None:
        server.replies = [Reply(503), Reply(breaks=True), Reply()]
        task = task_of(method="POST", headers=headers, content="x")
        assert ok(Case().run("looks_up", task, search={"base_url": server.url, **tool})) == "200 fine"
        assert [one.body for one in server.asked] == [b"x"] * 3

    def test_post_carries_a_key_that_is_the_same_when_its_function_begins_anew(self, server: ToolServer) -> None:
        def keys_of(task_id: str, **metadata: Any) -> dict[bytes, list[str]]:
            server.asked.clear()
            tools = {"search": {"base_url": server.url}}
            ok(asyncio.run(Case()._run("books", task_of(**metadata), 0.0, tools, task_id)))
            found: dict[bytes, list[str]] = {}
            for one in server.asked:
                found.setdefault(one.body.replace(b" ", b""), []).append(one.headers["idempotency-key"])
            return found

        first = keys_of("t-1", flights=["Oslo", "Rome"], times=2)
        keys = [key for two in first.values() for key in two]
        assert len(keys) == 4 and len({*keys}) == 4 and every(len(key) == 36 for key in keys)
        assert keys_of("t-1", flights=["Rome", "Oslo"], times=2, kind="httpx") == first
        assert {*keys_of("t-2", flights=["Oslo"])[b'{"to":"Oslo"}']}.isdisjoint(keys)
        own = keys_of("t-1", flights=["Oslo"], headers={"idempotency-key": "mine"})
        assert own == {b'{"to":"Oslo"}': ["mine"]}

    def test_post_whose_outcome_nobody_knew_keeps_its_key_when_its_function_repeats_it(
        self, server: ToolServer
    ) -> None:
        server.replies = [Reply(502), Reply(breaks=True), Reply()]
        ok(Case().run("insists_on_booking", search={"base_url": server.url}))
        first, second, third, another = (one.headers["idempotency-key"] for one in server.asked)
        assert first == second == third != another

    def test_get_carries_no_key(self, server: ToolServer) -> None:
        ok(Case().run("asks_two", search={"base_url": server.url}))
        assert every("idempotency-key" not in one.headers for one in server.asked)

    def test_post_that_is_repeated_keeps_its_key(self, server: ToolServer) -> None:
        server.replies = [Reply(503), Reply(breaks=True), Reply()]
        task = task_of(method="POST", content="x")
        ok(Case().run("looks_up", task, search={"base_url": server.url, "retry_unsafe": True}))
        assert len(server.asked) == 3 and len({one.headers["idempotency-key"] for one in server.asked}) == 1

    def test_post_that_was_surely_not_sent_is_repeated(self) -> None:
        with tool_server() as gone:
            port = int(gone.url.rpartition(":")[2])
        with ExitStack() as stack:

            class Reviving(FakeBreakers):
                async def failed(self, limit: str, error: Waits, **how: Any) -> Ruling:
                    if len(self.failures) == 1:  # the second one
                        stack.enter_context(tool_server(port=port))
                    return await super().failed(limit, error, **how)

            case = Case(breakers=Reviving(rulings=[OTHERS_DID_WELL]))
            assert ok(case.run("looks_up", task_of(method="POST"), search={"base_url": gone.url})) == "200 fine"
            assert len(case.breakers.failures) == 2

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 501])
    def test_refusal_of_the_request_is_the_functions(self, server: ToolServer, status: int) -> None:
        case = Case()
        server.replies = [Reply(status, b"no")]
        assert ok(case.run("looks_up", search={"base_url": server.url})) == f"{status} no"
        assert case.breakers.failures == [] and len(case.breakers.well) == 1

    def test_refusal_that_the_function_lets_through_is_a_bad_request(self, server: ToolServer) -> None:
        server.replies = [Reply(404)]
        outcome = Case().run("insists", search={"base_url": server.url})
        assert isinstance(outcome.error, BadRequest) and outcome.fault is None
        assert str(outcome.error) == "tool search: 127.0.0.1 answered 404 to GET"

    def test_refused_key_waits_for_another_one(self, server: ToolServer, key: dict[str, str]) -> None:
        case = Case()
        server.replies = [Reply(401), Reply()]
        assert ok(case.run("looks_up", search={"base_url": server.url, **key})) == "200 fine"
        assert [name for name, *_ in case.breakers.failures] == ["KeyRejected"]

    def test_401_without_a_key_of_ours_is_the_functions_matter(self, server: ToolServer) -> None:
        server.replies = [Reply(401)]
        assert ok(Case().run("looks_up", search={"base_url": server.url})) == "401 fine"

    def test_tool_that_fails_while_others_do_well_ends_the_task_in_the_end(self, server: ToolServer) -> None:
        case = Case()
        case.breakers.rulings = [OTHERS_DID_WELL]
        server.replies = [Reply(500)]
        outcome = case.run("insists", search={"base_url": server.url})
        assert isinstance(outcome.error, OutOfTries) and outcome.error.blame == "provider" and outcome.fault is None
        assert len(server.asked) == 4

    def test_open_breaker_is_waited_out_with_the_clock_standing_still(self, server: ToolServer) -> None:
        case = Case()
        case.breakers.waits = [Wait("outage", opens_at=0.0, about=LIMIT)] * 4
        task = BotTask(prompt="x", deadline_s=0.15)
        assert ok(case.run("looks_up", task, search={"base_url": server.url})) == "200 fine"

    def test_who_waits_for_it_is_counted_by_pool_and_only_as_long(
        self, server: ToolServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = list[dict[str, dict[str, int]]]()

        class Watched(ToolApis):
            @contextmanager
            def standing(self, asker: RawAsker, name: str) -> Iterator[None]:
                with super().standing(asker, name):
                    found.append(self.waiting())
                    yield
                found.append(self.waiting())

        monkeypatch.setattr(tool_desk, "TOLD_AFTER_S", 0.0)
        monkeypatch.setitem(globals(), "ToolApis", Watched)
        server.replies = [Reply(500), Reply(200, b"fine")]
        assert ok(Case().run("looks_up", search={"base_url": server.url})) == "200 fine"
        waits = {a_bot().pool: {LIMIT: 1}}
        assert found == [waits, {}, waits, {}, waits, {}], "a turn, a pause, a turn"

    def test_timeout_of_the_tool_ends_a_request(self, server: ToolServer) -> None:
        case = Case()
        server.replies = [Reply(after_s=0.6), Reply()]
        assert ok(case.run("looks_up", search={"base_url": server.url, "timeout_s": 0.1})) == "200 fine"
        assert [name for name, *_ in case.breakers.failures] == ["ProviderUnavailable"]

    def test_deadline_cuts_a_request_that_others_have_answers_to(self, server: ToolServer) -> None:
        server.replies = [Reply(after_s=0.8)]
        case = Case()
        outcome = case.run("looks_up", BotTask(prompt="x", deadline_s=0.1), search={"base_url": server.url})
        assert isinstance(outcome.error, DeadlineExceeded)
        assert case.limiter.is_settled_once and case.bill.entries[0].state == "unknown"

    def test_failures_are_counted_by_bot_and_tool(self, server: ToolServer) -> None:
        case = Case()
        server.replies = [Reply(503), Reply(429, headers={"Retry-After": "0"}), Reply(404)]
        case.run("looks_up", search={"base_url": server.url})
        where = ("research", a_bot().name, "tools/search")
        kinds = ("ProviderUnavailable", "RateLimited", "BadRequest")
        assert case.errors.failures == [(*where, kind) for kind in kinds]


class TestMoney:
    def test_answer_costs_and_a_refusal_does_not(self, server: ToolServer) -> None:
        case = Case()
        server.replies = [Reply(429, headers={"Retry-After": "0"}), Reply(), Reply(404)]
        outcome = case.run("asks_two", search={"base_url": server.url, "usd_per_call": 0.25})
        assert outcome.cost_usd_picos == PICOS // 4
        told = [(one.limit, one.usd_picos, one.state, one.usage.total_tokens) for one in case.bill.entries]
        assert told == [(LIMIT, 0, "settled", 0), (LIMIT, PICOS // 4, "settled", 0), (LIMIT, 0, "settled", 0)]
        assert outcome.attempts == 0, "calls of models"

    def test_tool_without_a_price_costs_nothing_and_leaves_the_cost_unknown(self, server: ToolServer) -> None:
        case = Case()
        outcome = case.run("looks_up", search={"base_url": server.url})
        assert outcome.cost_usd_picos is None and case.bill.entries[0].usd_picos == 0

    def test_max_cost_of_the_task_counts_tools(self, server: ToolServer) -> None:
        task = BotTask(prompt="x", max_cost_usd=0.3)
        outcome = Case().run("asks_two", task, search={"base_url": server.url, "usd_per_call": 0.25})
        assert isinstance(outcome.error, TooExpensive) and len(server.asked) == 1
        assert outcome.cost_usd_picos == PICOS // 4

    def test_cut_request_is_entered_at_what_was_reserved(self, server: ToolServer) -> None:
        case = Case()
        server.replies = [Reply(breaks=True), Reply()]
        ok(case.run("looks_up", search={"base_url": server.url, "usd_per_call": 0.25}))
        assert [(one.usd_picos, one.state) for one in case.bill.entries] == [
            (PICOS // 4, "unknown"), (PICOS // 4, "settled"),
        ]  # fmt: skip

    def test_open_road_that_closes_is_counted_in_nothing(self, server: ToolServer) -> None:
        case = Case()
        case.breakers.rulings = [Ruling(Wait("outage", opens_at=0.0), 0.0, counts=0.0)]
        server.replies = [Reply(500), Reply()]
        assert ok(case.run("looks_up", search={"base_url": server.url})) == "200 fine"


def test_worker_without_tools_tells_what_to_write() -> None:
    async def go() -> Outcome:
        agent = Agent(
            a_gateway(FakeLimiter(), FakeProvider(["x"])), settings_of(function=f"{HERE}:looks_up"), share=lambda: 1.0
        )
        try:
            return await agent.run(BotTask(prompt="x"), a_bot(), task_id="t", before=NOTHING_BEFORE)
        finally:
            await agent.close()

    outcome = asyncio.run(go())
    assert outcome.parking is not None and "[tools.search]" in outcome.parking.wait.told


def test_errors_tell_which_they_are() -> None:
    assert issubclass(KeyMissing, ConfigurationError) and ToolFailed.blame == "provider"
