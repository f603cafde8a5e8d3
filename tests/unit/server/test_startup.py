"""What the server says of itself as it starts."""

from __future__ import annotations

import logging

import pytest

from yolo_backend.server.startup import _tell_who_may_call


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("host", "login", "is_told"),
    [
        ("0.0.0.0", {}, True),
        ("192.168.1.7", {}, True),
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("0.0.0.0", {"BASIC_AUTH_USER": "yolo", "BASIC_AUTH_PASS": "secret"}, False),
    ],
)
def test_that_anybody_may_call_is_said_with_two_ways_out(
    host: str,
    login: dict[str, str],
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        _tell_who_may_call(host)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == (
        [
            "Whoever reaches port 9090 of this machine may ask for predictions, without a login. To change that, set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS, or start with --host 127.0.0.1 if Label Studio is on this machine"
        ]
        if is_told
        else []
    )
