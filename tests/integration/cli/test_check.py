"""`check` without a Label Studio: weights that are missing are looked for among Ultralytics' releases."""

from __future__ import annotations

import json
from pathlib import Path

from tests.harness.command import run_command
from tests.harness.http_server import StartServer, reply

NOWHERE = "http://127.0.0.1:1"


LOGIN_PAGE = b"<html>Log in</html>"


# Nothing to load, so that each test is quick.
NO_WEIGHTS = {"MODEL_NAME": "absent.pt"}


def test_nobody_there_is_told_with_the_fix_and_the_rest_is_not_called_fine(tmp_path: Path) -> None:
    arguments = ["check", "--url", NOWHERE, "--token", "0" * 40, "--project", "1"]

    done = run_command(*arguments, environment=NO_WEIGHTS, cwd=tmp_path)

    assert done.returncode == 1
    first, fix, *others = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert first.startswith(f"✗ Label Studio Label Studio doesn't answer at {NOWHERE} (connection refused)")
    assert fix.startswith("→ Start it, or correct LABEL_STUDIO_URL; in a container, localhost is the container itself")
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
