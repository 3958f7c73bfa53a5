from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fleet import config
from tests.redis_server import SERVER_VARIABLE
from tests.waiting import wait_until


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("8.8.8.8", 53)])
def test_no_test_can_connect_to_the_internet(address: tuple[str, int]) -> None:
    with socket.socket() as sock, pytest.raises(RuntimeError, match="do not use the internet"):
        sock.connect(address)


def test_no_test_can_look_up_a_name() -> None:
    with pytest.raises(RuntimeError, match="do not use the internet"):
        socket.getaddrinfo("example.com", 80)


def test_every_test_has_an_own_empty_home() -> None:
    assert config.home_path().parent == Path.cwd()
    assert {name for name in os.environ if name.startswith("FLEET_")} - {SERVER_VARIABLE} == {"FLEET_HOME"}


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="in vain until the moon is blue"):
        wait_until(lambda: False, timeout_s=0.02, what="the moon is blue")
