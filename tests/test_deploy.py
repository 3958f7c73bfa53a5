"""What is in `deploy/`: the cluster's files are built and held against Kubernetes' schemas, units against systemd."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from fleet.cli.main import COMMANDS
from fleet.config import load
from fleet.store.address import Address
from fleet.store.private.service import free_port
from tests.every import every
from tests.house import ROOT
from tests.waiting import wait_until

KUBERNETES, SYSTEMD = ROOT / "deploy" / "kubernetes", ROOT / "deploy" / "systemd"
PASSWORD = "letters0123"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} on the PATH")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything that `kubectl apply -k` would send."""
    folder = tmp_path_factory.mktemp("kustomize") / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    for example in (folder / "secrets").glob("*.example"):
        example.with_suffix("").write_text(PASSWORD, encoding="utf-8")
    done = subprocess.run(
        [tool("kubectl"), "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(built: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in built:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def test_every_object_is_one_by_the_schemas_of_kubernetes(built: list[dict[str, Any]]) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate (110 MB)")
    own = [one for one in built if not one["apiVersion"].startswith("keda.sh/")]
    assert len(own) > 15
    for one in own:
        schemas.validate(one, "1.31", strict=True)


def test_pods_run_as_nobody_on_a_file_system_that_cannot_be_written(built: list[dict[str, Any]]) -> None:
    found = dict(pods(built))
    assert set(found) == {"worker", "flower", "redis"}
    for pod in found.values():
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]} and "memory" in container["resources"]["limits"]


def test_no_secret_stands_in_an_environment_or_a_command(built: list[dict[str, Any]]) -> None:
    for _, pod in pods(built):
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert not [one for one in container.get("env", ()) if "valueFrom" in one]
            assert PASSWORD not in str(container)


def test_what_is_mounted_named_or_scaled_is_there(built: list[dict[str, Any]]) -> None:
    known = {(one["kind"], one["metadata"]["name"]) for one in built}
    for _, pod in pods(built):
        for volume in pod["volumes"]:
            for kind, field, name in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
                assert field not in volume or (kind, volume[field][name]) in known
    (scaled,) = [one for one in built if one["kind"] == "ScaledObject"]
    (login,) = [one for one in built if one["kind"] == "TriggerAuthentication"]
    assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in known
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["url"].endswith("/fleet/scaling")
    assert trigger["metadata"]["valueLocation"] == "decision.workers"
    assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in known
    assert every(("Secret", ref["name"]) in known for ref in login["spec"]["secretTargetRef"])


def test_redis_in_the_cluster_is_set_as_on_one_host() -> None:
    lines = [line for line in (ROOT / "deploy" / "redis.conf").read_text().splitlines() if not line.startswith("#")]
    assert not set(lines) - set((KUBERNETES / "config" / "redis.conf").read_text().splitlines())


@pytest.mark.parametrize("script", sorted((KUBERNETES / "config").glob("*.sh")), ids=lambda path: path.name)
def test_every_script_is_one(script: Path) -> None:
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("password", ["", "it's", "a@b", "a b", "a/b", "a%20", "$(id)", "two\nlines", "d\u00e9j\u00e0"])
def test_a_password_that_a_url_or_a_shell_would_read_otherwise_is_refused(tmp_path: Path, password: str) -> None:
    (tmp_path / "password").write_text(password, encoding="utf-8")
    text = (KUBERNETES / "config" / "secrets.sh").read_text(encoding="utf-8")
    text = text.replace("/secrets/redis", str(tmp_path)).replace("/run/fleet", f"{tmp_path}/run")
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "expected a Redis password of letters, digits" in done.stderr
    assert not (tmp_path / "run").exists() and (not password or password not in done.stderr)


def test_secrets_are_copied_for_their_owner_only_and_say_how_redis_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("secrets/redis", "secrets/keys", "secrets/flower", "run/fleet", "var/lib/fleet"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("redis/password", "keys/openai", "flower/password"):
        (tmp_path / "secrets" / file).write_text(PASSWORD, encoding="utf-8")
    text = (KUBERNETES / "config" / "secrets.sh").read_text(encoding="utf-8")
    for place in ("/secrets/", "/run/fleet", "/var/lib/fleet"):
        text = text.replace(place, f"{tmp_path}{place}")
    subprocess.run(["sh", "-c", text], check=True)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run" / "fleet").iterdir()} == {0o600}
    shown = subprocess.run(
        ["sh", "-c", f". {tmp_path}/run/fleet/redis.env && env"], capture_output=True, text=True, check=True
    )
    for name, _, value in (
        line.partition("=") for line in shown.stdout.splitlines() if line.startswith("FLEET_REDIS_")
    ):
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.redis.url is not None and settings.redis.replicas == 1
    address = Address.parse(settings.redis.url.get_secret_value())
    assert len(address.sentinels) == 3 and address.password == PASSWORD


def test_redis_and_its_sentinel_start_by_the_clusters_script_and_tell_who_is_master(tmp_path: Path) -> None:
    tool("redis-server")
    script, (redis_port, sentinel_port) = tmp_path / "start.sh", (free_port(), free_port())
    for folder in ("run/secrets/redis", "run/redis", "etc", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run" / "secrets" / "redis" / "password").write_text(PASSWORD, encoding="utf-8")
    conf = (KUBERNETES / "config" / "redis.conf").read_text(encoding="utf-8").replace("/data", f"{tmp_path}/data")
    (tmp_path / "etc" / "redis.conf").write_text(f"{conf}port {redis_port}\n", encoding="utf-8")
    text = (KUBERNETES / "config" / "start-redis.sh").read_text(encoding="utf-8")
    for was, now in (
        ("/run/", f"{tmp_path}/run/"), ("/etc/redis-start", f"{tmp_path}/etc"), ("/data", f"{tmp_path}/data"),
        ("26379", str(sentinel_port)), ("6379", str(redis_port)), ("redis-0 redis-1 redis-2", "localhost"),
        ('"$pod.redis"', "localhost"), ("redis-0.redis", "localhost"), ("$(hostname).redis", "localhost"),
    ):  # fmt: skip
        text = text.replace(was, now)
    script.write_text(text, encoding="utf-8")
    started = [subprocess.Popen(["sh", script, what], stdout=subprocess.DEVNULL) for what in ("redis", "sentinel")]
    try:
        for port in (redis_port, sentinel_port):
            ask = ["sh", str(script), "ping", str(port)]
            wait_until(lambda ask=ask: subprocess.run(ask, check=False).returncode == 0, 20, f"{port} answers")
        with Redis(port=sentinel_port, password=PASSWORD, decode_responses=True) as sentinel:
            master = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "fleet")
        assert list(master) == ["localhost", str(redis_port)]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_the_config_of_the_cluster_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_CONFIG", str(KUBERNETES / "config" / "fleet.toml"))
    assert load().pools["research"].bots == 100


def test_a_pod_is_given_longer_than_its_worker_has_to_end_what_it_runs(
    built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CONFIG", str(KUBERNETES / "config" / "fleet.toml"))
    grace_s = load().worker.grace_s
    assert grace_s >= 600, "a long call is not cut off, and paid again, because KEDA scales in"
    assert dict(pods(built))["worker"]["terminationGracePeriodSeconds"] >= grace_s + 30


def test_units_are_ones_by_systemds_own_judgement(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    for unit in SYSTEMD.iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/fleet/bin", str(Path(sys.executable).parent))
        name = unit.name.replace("@.", "@1.")
        (tmp_path / name).write_text(text, encoding="utf-8")
    units = sorted(tmp_path.iterdir())
    assert len(units) == 5
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    own = [line for line in done.stderr.splitlines() if "fleet-" in line and "user" not in line.lower()]
    assert done.returncode == 0 and own == [], done.stderr


def started_by(unit: str) -> str:
    """The shell command of a unit of worker 1, as systemd hands it to `sh -c`."""
    text = (SYSTEMD / unit).read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=/bin/sh -c ")]
    return line.partition("'")[2].removesuffix("'").replace("$$", "$").replace("%i", "1").replace("%H", "h")


@pytest.mark.parametrize(
    ("code", "active_s", "restarts", "ends"),
    [(0, 5000, False, 0), (4, 5000, True, 0), (4, 100, False, 0), (2, 5000, False, 2), (127, 5000, False, 127)],
)
def test_a_worker_is_restarted_only_where_it_is_not_well_and_did_not_just_start(
    tmp_path: Path, code: int, active_s: int, restarts: bool, ends: int
) -> None:
    up_s = int(float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])) + 100_000
    (tmp_path / "uptime").write_text(f"{up_s}.25 1.0\n", encoding="ascii")
    for name, does in (
        ("fleet", f"exit {code}"),
        ("systemctl", f'[ $1 = show ] && echo {(up_s - active_s) * 1_000_000} || echo "$@" >> {tmp_path}/told'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    command = started_by("fleet-health@.service").replace("/opt/fleet/bin", str(tmp_path))
    command = command.replace("/proc/uptime", f"{tmp_path}/uptime").replace("systemctl ", f"{tmp_path}/systemctl ")
    assert subprocess.run(["sh", "-c", command], check=False).returncode == ends
    told = tmp_path / "told"
    assert (told.read_text() if told.exists() else "") == ("restart fleet-worker@1.service\n" if restarts else "")


def test_a_pod_is_restarted_only_where_its_worker_is_not_well(built: list[dict[str, Any]], tmp_path: Path) -> None:
    probe = dict(pods(built))["worker"]["containers"][0]["livenessProbe"]["exec"]["command"]
    (tmp_path / "redis.env").touch()
    for code in (0, 1, 2, 4):
        (tmp_path / "fleet").write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
        (tmp_path / "fleet").chmod(0o755)
        command = [
            part.replace("/run/fleet/", f"{tmp_path}/").replace("fleet health", "./fleet health") for part in probe
        ]
        assert subprocess.run(command, cwd=tmp_path, check=False).returncode == int(code == 4)


def test_probes_and_units_use_commands_that_there_are() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*KUBERNETES.glob("*.yaml"), *SYSTEMD.iterdir())]
    assert sum("fleet health --" in text for text in texts) == 2 and "health" in COMMANDS
