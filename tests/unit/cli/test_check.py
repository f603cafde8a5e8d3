"""`check`, as far as it gets without a Label Studio; with the real one in tests/e2e."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness.command import run_command
from tests.harness.http_server import StartServer, reply
from tests.harness.stack import pick_port

NOWHERE = f"http://127.0.0.1:{pick_port(0)}"
LOGIN_PAGE = b"<html>Log in</html>"
# Nothing to load, so that each test is quick.
NO_WEIGHTS = {"MODEL_NAME": "absent.pt"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Set LABEL_STUDIO_URL (or --url): which Label Studio is it about?"),
        (["--token", "0" * 40], "LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL: whose key is it?"),
        (["--url", "studio"], "LABEL_STUDIO_URL or LABEL_STUDIO_HOST: should look like http://label-studio:8080"),
        (["--url", NOWHERE, "--backend-url", "backend:9090"], "--backend-url should look like http://localhost:9090"),
        (["--url", NOWHERE, "--backend-url", "http://[::1"], "--backend-url should look like http://localhost:9090"),
        (
            ["--url", NOWHERE, "--backend-url", "http://me:secret@backend:9090"],
            "--backend-url should hold no login: set BASIC_AUTH_USER and BASIC_AUTH_PASS",
        ),
    ],
)
def test_what_cannot_be_tried_is_told_in_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    done = run_command("check", *arguments, environment={}, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


def test_nobody_there_is_told_with_the_fix_and_the_rest_is_not_called_fine(tmp_path: Path) -> None:
    arguments = ["check", "--url", NOWHERE, "--token", "0" * 40, "--project", "1"]

    done = run_command(*arguments, environment=NO_WEIGHTS, cwd=tmp_path)

    assert done.returncode == 1
    first, fix, *others = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert first.startswith(f"✗ Label Studio Label Studio doesn't answer at {NOWHERE} (connection refused)")
    assert fix.startswith("→ Set LABEL_STUDIO_URL")
    assert others[0] == '- token not tried: it needs "Label Studio", above'
    assert "✓" not in done.stdout
    assert "0" * 40 not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_document(serve: StartServer, tmp_path: Path) -> None:
    url = serve(reply(LOGIN_PAGE)).url

    done = run_command("check", "--url", url, "--json", environment=NO_WEIGHTS, cwd=tmp_path)

    findings = json.loads(done.stdout)
    assert done.returncode == 1
    assert all(set(finding) == {"check", "state", "detail", "fix"} for finding in findings)
    assert [finding["state"] for finding in findings if finding["check"] in {"Label Studio", "weights"}] == [
        "wrong"
    ] * 2
    assert {finding["state"] for finding in findings} == {"wrong", "not tried"}


def test_help_is_quick_to_read(tmp_path: Path) -> None:
    done = run_command("check", "--help", environment={}, cwd=tmp_path)

    assert done.returncode == 0
    assert "docker compose run --rm ml-backend check" in done.stdout
