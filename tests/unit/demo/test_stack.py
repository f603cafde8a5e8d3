"""The ports that the demo's and the tests' servers get."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from yolo_backend.demo.stack import pick_port

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_port_that_is_free_stays_as_it_was_asked_for() -> None:
    free = pick_port(0)
    assert pick_port(free) == free


def test_for_a_taken_port_there_is_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = pick_port(taken.getsockname()[1])
        assert port != taken.getsockname()[1]
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.skipif(not _RANGE.exists(), reason="Linux says it in /proc")
def test_no_connection_of_others_can_take_a_port_before_its_server_has_it() -> None:
    first_of_connections = int(_RANGE.read_text().split()[0])
    assert all(pick_port(0) < first_of_connections for _ in range(20))
