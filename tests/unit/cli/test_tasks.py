"""The options of `tasks`; what it lists is tested with the real Label Studio."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.harness.command import exit_code
from tests.harness.http_server import StartServer, reply
from tests.harness.studio_client import BCCD_CONFIG
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


def test_a_usual_name_and_version_take_one_line_of_80_columns(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    prediction = {"id": 1, "model_version": "bccd-53cbdc6c", "score": 0.5}
    task = {
        "id": 300, "data": {"image": "/data/upload/2/f4aa6b00-BloodImage_00410.jpg"}, "predictions": [prediction],
        "total_predictions": 1, "total_annotations": 0, "created_at": "2026-11-30T14:30:00Z",
    }  # fmt: skip
    answer = {"title": "Cells", "label_config": BCCD_CONFIG, "tasks": [task]}
    environment.setenv("LABEL_STUDIO_URL", serve(reply(json.dumps(answer).encode())).url)
    environment.setenv("COLUMNS", "80")

    assert exit_code("tasks", "-p", "1") == 0
    lines = capsys.readouterr().out.splitlines()

    assert max(map(len, lines)) <= 80
    (row,) = [line.split() for line in lines if "300" in line]
    assert row == ["300", "BloodImage_00410.jpg", "1", "bccd-53cbdc6c", "0.50", "0", "2026-11-30"]
