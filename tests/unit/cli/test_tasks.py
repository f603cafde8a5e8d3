"""The options of `tasks`; what it lists is tested with the real Label Studio."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from yolo_backend.cli.app import app

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "Missing option '--project'"),
        (["-p", "7", "--json", "--csv"], "choose one of --json and --csv"),
        (["-p", "7", "--min-score", "1.5"], "less than or equal to 1"),
        (["-p", "7", "--limit", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_options_are_told(options: list[str], expected: str) -> None:
    done = CliRunner().invoke(app, ["tasks", *options])
    assert done.exit_code == 2
    assert expected in done.stderr


def test_help_has_examples() -> None:
    done = CliRunner().invoke(app, ["tasks", "--help"])
    assert done.exit_code == 0
    assert "yolo-backend tasks --project 7 --without-predictions" in done.stdout
