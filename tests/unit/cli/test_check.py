"""`check`, as far as it gets without a Label Studio; with the real one in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.command import run_command

NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Set LABEL_STUDIO_URL (or --url): it is needed to reach Label Studio"),
        (["--token", "0" * 40], "LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL: set the URL, too"),
        (
            ["--url", "studio"],
            "LABEL_STUDIO_URL or LABEL_STUDIO_HOST: should begin with http:// or https://, as http://studio",
        ),
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


def test_help_is_quick_to_read(tmp_path: Path) -> None:
    done = run_command("check", "--help", environment={}, cwd=tmp_path)

    assert done.returncode == 0
    assert "docker compose run --rm ml-backend check" in done.stdout
