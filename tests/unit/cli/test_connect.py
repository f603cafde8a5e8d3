"""`connect`, as far as it gets without a Label Studio."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.command import run_command
from tests.harness.http_server import StartServer, reply


def test_without_a_label_studio_it_says_what_to_set(tmp_path: Path) -> None:
    done = run_command("connect", environment={}, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "Not connected: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY\n"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("localhost:9090", "--backend-url should look like http://localhost:9090"),
        ("http://me:secret@backend", "--backend-url should hold no login: set BASIC_AUTH_USER and BASIC_AUTH_PASS"),
    ],
)
def test_an_address_that_is_none_is_told_at_once(tmp_path: Path, address: str, line: str) -> None:
    done = run_command("connect", "--backend-url", address, environment={}, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (503, "answers 503: Label Studio is starting, or stopped: see that it runs, then the proxy's log"),
        (
            404,
            "isn't Label Studio's address (404): set LABEL_STUDIO_URL to the address of Label Studio's first page, "
            "with its path, as in https://host/label-studio",
        ),
    ],
)
def test_it_gives_up_in_time(serve: StartServer, tmp_path: Path, status: int, problem: str) -> None:
    url = serve(reply(b"", status)).url

    done = run_command("connect", "--url", url, "--token", "0" * 40, "--timeout", "0", environment={}, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == f"Not connected: Label Studio is not up after 0 s. {url} {problem}\n"
