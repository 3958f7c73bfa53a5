"""The Fleet tab's routes over HTTP: who may look, who may act, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie

import pytest

from fleet import config
from fleet.dashboard.frames import COLUMNS
from fleet.engine.messages.queues import list_key
from fleet.roster import Roster, read_quarantined
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.dashboard.flower_process import Flower, running
from tests.engine.operations.test_story import message_of
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until

PAUSE = json.dumps({"do": "pause", "pool": "research"})


@dataclass
class Served:
    """A Flower, the login it accepts, and its Redis."""

    flower: Flower
    login: str
    redis: RedisServer

    def token(self, login: str | None) -> tuple[str, str]:
        """Open the page as a browser does: return its cookie and its token."""
        status, headers, body = self.flower.ask("GET", "/fleet", login)
        assert status == 200
        cookie = SimpleCookie(headers["Set-Cookie"])["_xsrf"].value
        found = re.search(r'data-token="([^"]+)"', body)
        assert found
        return f"_xsrf={cookie}", found[1]

    def act(self, body: str, *, login: str | None, **headers: str) -> tuple[int, str]:
        """Act as our page does."""
        cookie, token = self.token(login)
        sent = {"Cookie": cookie, "X_XSRFToken": token, "Sec_Fetch_Site": "same-origin", **headers}
        status, _, answer = self.flower.ask("POST", "/fleet/act", login, body, **sent)
        return status, answer

    @property
    def gate(self) -> bytes | None:
        with connect(self.redis.url) as client:
            return client.get(keys.gate(keys.queue("research")))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("routes")
    redis = RedisServer(folder)
    try:
        with running(
            folder, redis.url, env={"FLEET_HOME": str(folder), "FLEET_REDIS__SOCKET_TIMEOUT_S": "1"}
        ) as flower:
            yield Served(flower, f"fleet:{(folder / 'flower.password').read_text().strip()}", redis)
    finally:
        redis.stop()


ROUTES = [
    "/fleet", "/fleet/state", "/fleet/bot/research-001", "/fleet/metrics", "/fleet/scaling", "/fleet/task/t1",
    "/fleet/dead",
]  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
def test_only_who_logs_in_sees_the_fleet(served: Served, path: str) -> None:
    assert served.flower.get(path)[0] == 401
    assert served.flower.get(path, "fleet:wrong")[0] == 401
    assert served.flower.get(path, served.login)[0] == 200


@pytest.mark.parametrize("path", ["/workers", "/tasks", "/broker", "/fleet"])
def test_every_page_of_flower_leads_to_the_fleet(served: Served, path: str) -> None:
    assert 'href="/fleet"' in served.flower.get(path, served.login)[1]


def test_the_page_allows_no_foreign_and_no_inline_script(served: Served) -> None:
    _, headers, body = served.flower.ask("GET", "/fleet", served.login)
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", body, re.DOTALL)
    assert scripts and every(not inside.strip() for inside in scripts)
    assert not re.search(r"\son[a-z]+=|\sstyle=", body)
    assert not re.search(r"(?:src|href)=\"https?://(?!flower\.|github\.)", body)


def test_an_action_of_the_page_is_carried_out_and_recorded(served: Served) -> None:
    status, said = served.act(PAUSE, login=served.login)
    undo = [{"do": "resume", "pools": ["research"]}]
    assert (status, json.loads(said)) == (200, {"done": "research is paused", "undo": undo})
    assert served.gate == b"-1"
    status, said = served.act(json.dumps({"do": "resume", "pool": "research"}), login=served.login)
    assert (status, served.gate) == (200, None)
    events = json.loads(served.flower.get("/fleet/state", served.login)[1])["view"]["events"]
    assert [event["name"] for event in events[:2]] == ["pool_resumed", "pool_paused"]
    assert events[0]["fields"] == {"pool": "research", "by": "fleet", "host": socket.gethostname()}


def test_a_task_is_opened_by_its_id_whatever_that_is_and_cancelled_from_the_page(served: Served) -> None:
    with connect(served.redis.url) as client:
        client.lpush(list_key(keys.queue("research"), 2), message_of("an id / of mine"))
        path = "/fleet/task/an%20id%20%2F%20of%20mine"
        page = json.loads(served.flower.get(path, served.login)[1])
        assert (page["story"]["state"], page["story"]["ahead"], page["deeds"]) == ("queued", 0, ["cancel"])
        assert page["texts"] is None  # dashboard.show_texts is off
        status, said = served.act(json.dumps({"do": "cancel", "task": "an id / of mine"}), login=served.login)
        assert (status, json.loads(said)["done"]) == (200, "cancelled: it waited, and does not start")
        assert json.loads(served.flower.get(path, served.login)[1])["story"]["state"] == "revoked"
        client.delete(list_key(keys.queue("research"), 2))
    assert json.loads(served.flower.get("/fleet/dead?reason=Poison", served.login)[1]) == {"letters": []}


def test_what_undoes_a_pause_brings_the_gate_back_that_was_there(served: Served) -> None:
    def do(**action: object) -> list[dict[str, object]]:
        status, said = served.act(json.dumps(action), login=served.login)
        assert status == 200, said
        return list(json.loads(said)["undo"])

    def gate() -> tuple[bytes | None, bool]:
        with connect(served.redis.url) as client:
            return served.gate, client.pttl(keys.gate(keys.queue("research"))) > 500_000  # type: ignore[operator]

    do(do="pause", pool="research", lowest="normal", for_s=600)
    assert gate() == (b"2", True)
    (closed,) = do(do="pause", pools=["research"])
    assert gate() == (b"-1", False)
    assert do(**closed) == [{"do": "pause", "pools": ["research"]}]
    assert gate() == (b"2", True)
    (resumed,) = do(do="resume", pools=["research", "writing"])
    assert gate() == (None, False)
    assert do(**resumed) == [{"do": "resume", "pools": ["research"]}]
    assert gate() == (b"2", True)
    do(do="resume", pool="research")
    assert do(do="resume", pool="research") == []


def test_a_selection_of_bots_is_one_action_one_event_and_one_way_back(served: Served) -> None:
    def do(**action: object) -> tuple[int, dict[str, object]]:
        status, said = served.act(json.dumps(action), login=served.login)
        return status, json.loads(said)

    def out() -> dict[str, tuple[str, str]]:
        with connect(served.redis.url) as client:
            found = read_quarantined(client, ["research", "writing", "review"])
        return {name: (one.by, one.reason) for name, one in found.items()}

    async def seed() -> None:
        store = Store(served.redis.url)
        await Roster(store, config.load()).seed()
        await store.close()

    asyncio.run(seed())
    assert do(do="quarantine", bots=["review-001", "review-999"], reason="x")[0] == 400
    assert out() == {}, "all or none"
    assert do(do="quarantine", bots=[], reason="x")[0] == 400
    do(do="quarantine", bot="review-001")
    bots = [f"research-{number:03d}" for number in range(1, 12)] + ["review-001"]
    status, said = do(do="quarantine", bots=bots, reason="all odd", for_s=600)
    assert (status, str(said["done"]).split(" are ")[0]) == (
        200,
        "research-001, research-002, research-003, research-004 and 8 more",
    )
    assert out() == dict.fromkeys(bots, ("fleet", "all odd"))
    event = json.loads(served.flower.get("/fleet/state", served.login)[1])["view"]["events"][0]
    assert (event["name"], event["fields"]["by"], event["fields"]["reason"]) == ("bot_quarantined", "fleet", "all odd")
    assert event["fields"]["bots"].endswith("research-008 and 4 more")
    assert event["fields"]["pool"] == "research, review"
    for undo in said["undo"]:  # type: ignore[attr-defined]
        do(**undo)
    assert out() == {"review-001": ("fleet", "no reason given")}
    assert do(do="release", bots=bots)[1] == {
        "done": "review-001 takes tasks again",
        "undo": [{"do": "quarantine", "bots": ["review-001"], "reason": "no reason given"}],
    }
    assert out() == {}
    do(do="quarantine", bots=bots, reason="all odd")
    status, said = do(do="release", pool="research")
    assert (status, said["done"], list(out())) == (200, "11 bots of research take tasks again", ["review-001"])
    (undo,) = said["undo"]  # type: ignore[misc]
    do(**undo)
    assert out() == dict.fromkeys(bots, ("fleet", "all odd"))
    assert do(do="release", pool="reserch")[0] == 400 and do(do="release")[0] == 400
    assert do(do="release", pool="writing")[1]["done"] == "no bot of writing was quarantined"


@pytest.mark.parametrize(
    "headers",
    [
        {"X_XSRFToken": ""},
        {"X_XSRFToken": "2|00000000|00000000000000000000000000000000|0"},
        {"Cookie": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "", "Origin": "http://evil.example"},
    ],
)
def test_an_action_that_does_not_come_from_our_page_is_refused(served: Served, headers: dict[str, str]) -> None:
    assert served.act(PAUSE, login=served.login, **headers)[0] == 403
    assert served.gate is None


def test_nobody_acts_without_the_password(served: Served) -> None:
    cookie, token = served.token(served.login)
    status, _, _ = served.flower.ask("POST", "/fleet/act", None, PAUSE, Cookie=cookie, X_XSRFToken=token)
    assert status == 401
    assert served.gate is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("nonsense", "Invalid JSON"),
        ('{"do": "shutdown"}', "do"),
        ('{"do": "pause", "pool": "nowhere"}', "pool: expected one of research, writing, review, got 'nowhere'"),
        ('{"do": "pause", "pool": "research", "for_s": 1e9}', "for_s"),
        ('{"do": "quarantine", "bot": "nowhere-001"}', "expected POOL-NUMBER with a pool of research"),
        ('{"do": "quarantine", "bot": "research-999"}', "expected one that the workers of pool research know"),
    ],
)
def test_a_wrong_action_is_refused_with_what_was_expected(served: Served, body: str, says: str) -> None:
    status, answer = served.act(body, login=served.login)
    assert status == 400
    assert says in json.loads(answer)["error"]


def test_a_bot_that_does_not_exist_is_not_found(served: Served) -> None:
    status, body = served.flower.get("/fleet/bot/research-999", served.login)
    assert status == 404
    assert "expected a bot of the configured pools" in json.loads(body)["error"]
    status, body = served.flower.get("/fleet/tasks?q=pool%3Dresarch", served.login)
    assert (status, json.loads(body)["error"]) == (
        400, "pool: expected one of research, writing, review, got 'resarch'",
    )  # fmt: skip
    assert served.flower.get("/fleet/tasks?q=pool%3Dresearch")[0] == 401


def test_a_page_that_knows_the_last_state_gets_only_what_changed(served: Served) -> None:
    first = json.loads(served.flower.get("/fleet/state", served.login)[1])["view"]
    assert [names for *names, _ in first["bots"]["names"]] == [["research", 1], ["writing", 1], ["review", 1]]
    path = f"/fleet/state?since={first['version']}"

    def newer() -> dict[str, object] | None:
        view: dict[str, object] | None = json.loads(served.flower.get(path, served.login)[1]).get("view")
        return view

    wait_until(lambda: newer() is not None, what="the next reading")
    view = newer()
    assert view and "bots" not in view
    assert view["changed"] == {"rows": [], "columns": [[]] * len(COLUMNS), "reasons": []}


def test_what_a_page_asks_for_along_with_the_state_comes_with_it(served: Served) -> None:
    def also(query: str) -> dict[str, object]:
        answer: dict[str, object] = json.loads(served.flower.get(f"/fleet/state{query}", served.login)[1])["also"]
        return answer

    assert also("") == {}
    asked = also("?also=asks&also=schedules&also=nonsense")
    assert set(asked) == {"asks", "schedules"}
    assert asked["asks"] == {"asks": []}


@pytest.mark.parametrize("form", ["apply", "async-apply", "send-task"])
def test_a_form_that_contradicts_its_task_is_refused_in_words_and_a_right_one_is_queued(
    served: Served, form: str
) -> None:
    def send(queue: str) -> tuple[int, str]:
        body = json.dumps({"args": ["hi"], "kwargs": {"pool": "review"}, "queue": queue, "priority": "8", "timeout": 0})
        status, _, answer = served.flower.ask("POST", f"/api/task/{form}/fleet.submit_task", served.login, body)
        return status, answer

    status, answer = send("fleet.writing")
    assert (status, answer.partition(";")[0]) == (
        400, "queue: expected 'fleet.review', the queue of the task's pool, got 'fleet.writing'",
    )  # fmt: skip
    with connect(served.redis.url) as client:
        before = client.llen(list_key(keys.queue("review"), 4))
        assert send("review")[0] == 200
        assert client.llen(list_key(keys.queue("review"), 4)) == before + 1


def test_prometheus_reads_the_fleet(served: Served) -> None:
    status, headers, body = served.flower.ask("GET", "/fleet/metrics", served.login)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert 'fleet_waiting_tasks{pool="research",priority="high"} 0.0' in body


def test_keda_reads_how_many_workers_are_wanted_and_all_the_others_see_it(served: Served) -> None:
    status, headers, body = served.flower.ask("GET", "/fleet/scaling", served.login)
    assert status == 200 and headers["Content-Type"].startswith("application/json")
    wanted = json.loads(body)
    assert wanted["decision"]["workers"] >= 1 and wanted["decision"]["reason"]
    assert {"running", "waiting", "parked", "crew", "slots"} < wanted.keys()
    told = f"fleet_wanted_workers {wanted['decision']['workers']:.1f}"
    assert told in served.flower.get("/fleet/metrics", served.login)[1]


def test_a_redis_that_hangs_stops_neither_flower_nor_the_page(served: Served) -> None:
    served.flower.get("/fleet/state", served.login)
    served.redis.freeze()
    try:
        wait_until(
            lambda: json.loads(served.flower.get("/fleet/state", served.login)[1])["trouble"], what="the page says so"
        )
        assert json.loads(served.flower.get("/fleet/state", served.login)[1])["age_s"] > 0
        assert served.flower.get("/tasks", served.login)[0] == 200
        assert served.flower.get("/fleet/metrics", served.login)[0] == 503
        status, said = served.act(PAUSE, login=served.login)
        assert status >= 400
        assert "did not answer" in said
    finally:
        served.redis.thaw()
    wait_until(
        lambda: json.loads(served.flower.get("/fleet/state", served.login)[1])["trouble"] is None, what="it reads again"
    )


def test_a_flower_that_is_open_on_purpose_shows_the_fleet_and_lets_nobody_act(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, redis_process: RedisServer
) -> None:
    folder = tmp_path_factory.mktemp("open")
    env = {"FLEET_HOME": str(folder), "FLOWER_UNAUTHENTICATED_API": "true", "FLOWER_URL_PREFIX": "flower",
           "FLEET_DASHBOARD__OPERATORS": '["anna"]'}  # fmt: skip
    with running(folder, redis_url, env=env, prefix="/flower") as flower:
        assert json.loads(flower.get("/flower/fleet/state")[1])["may_act"] is False
        page = flower.get("/flower/fleet")[1]
        assert 'data-may-act="no"' in page
        assert flower.get(re.findall(r'src="([^"]+main\.js)"', page)[0])[0] == 200
        open_one = Served(flower, "", redis_process)
        _, headers, body = flower.ask("GET", "/flower/fleet")
        cookie = SimpleCookie(headers["Set-Cookie"])["_xsrf"].value
        token = re.findall(r'data-token="([^"]+)"', body)[0]
        status, _, answer = flower.ask(
            "POST", "/flower/fleet/act", None, PAUSE, Cookie=f"_xsrf={cookie}", X_XSRFToken=token
        )
        assert status == 403
        assert "nobody may act" in answer
        assert open_one.gate is None
        # nobody checks the name that somebody gives here: it is none
        status, _, answer = flower.ask("POST", "/flower/api/task/revoke/some-task", "anna:guessed")
        assert (status, "nobody may act" in answer) == (403, True)
        assert flower.get("/flower/api/workers")[0] == 200


def test_a_read_only_flower_shows_the_fleet_and_lets_nobody_act(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, redis_process: RedisServer
) -> None:
    folder = tmp_path_factory.mktemp("read-only")
    with running(folder, redis_url, env={"FLEET_HOME": str(folder), "FLOWER_READ_ONLY": "true"}) as flower:
        login = f"fleet:{(folder / 'flower.password').read_text().strip()}"
        only_read = Served(flower, login, redis_process)
        assert json.loads(flower.get("/fleet/state", login)[1])["may_act"] is False
        assert 'data-may-act="no"' in flower.get("/fleet", login)[1]
        status, answer = only_read.act(PAUSE, login=login)
        assert status == 403
        assert "read-only" in answer
        assert only_read.gate is None
