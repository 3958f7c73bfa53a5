"""How many files there may be, and what becomes of slots that they have no room for."""

from __future__ import annotations

import errno
import resource
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from fleet.engine.file_room import fit_slots
from fleet.open_files import files_for, slots_that_fit
from fleet.workers.providers.base import lack_of


def test_the_soft_limit_becomes_the_hard_one() -> None:
    code = (
        "import resource\nfrom fleet.open_files import raise_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))\nprint(raise_limit())\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "300\n(300, 300)\n"


def test_where_the_kernel_gives_less_than_it_says_the_most_that_it_gives_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fleet import open_files

    held = [256]

    def refuse(_: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        held[0] = wanted[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _: (held[0], resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files.raise_limit() == 10_240


@pytest.mark.parametrize("slots", [1, 7, 300, 2000])
def test_as_many_slots_fit_as_files_were_reckoned_for(slots: int) -> None:
    fit = slots_that_fit(files_for(slots))
    assert fit is not None
    assert slots <= fit <= slots + 1
    assert slots_that_fit(-1) is None
    assert slots_that_fit(10) == 1


@pytest.mark.parametrize(
    ("concurrency", "autoscale", "expected"),
    [
        (300, None, (153, None)),
        (100, None, (100, None)),
        (300, "400,10", (153, [153, 10])),
        (50, [200, 180], (50, [153, 153])),
        (50, "60,3", (50, "60,3")),
    ],
)
def test_slots_are_reduced_to_what_fits(
    monkeypatch: pytest.MonkeyPatch, concurrency: int, autoscale: Any, expected: tuple[int, Any]
) -> None:
    monkeypatch.setattr("fleet.engine.file_room.raise_limit", lambda: 256)
    monkeypatch.setattr("fleet.engine.file_room._said", [])
    worker = SimpleNamespace(concurrency=concurrency, autoscale=autoscale)
    fit_slots(worker)
    assert (worker.concurrency, worker.autoscale) == expected


KEY = ConnectionKey("api.example", 443, True, True, None, None, None, None)


@pytest.mark.parametrize(
    ("error", "is_ours"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(errno.EMFILE, "Too many open files")), True),
        (aiohttp.ClientConnectorError(KEY, OSError(errno.ENFILE, "Too many open files in system")), True),
        (aiohttp.ClientConnectorError(KEY, OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_SYSTEM, "System error")), True),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "Name or service not known")), False),
        (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "Connection refused")), False),
        (aiohttp.ServerDisconnectedError(), False),
    ],
)
def test_what_the_machine_lacks_is_not_the_providers_fault(error: BaseException, is_ours: bool) -> None:
    assert (lack_of(error) is not None) == is_ours
