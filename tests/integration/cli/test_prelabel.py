"""What `prelabel` tells of a run that goes wrong, and how it ends; against a small Label Studio of our own."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.fakes.filtering_label_studio import PROJECT, TOKEN, LabelStudio
from tests.harness.command import Done, run_command
from tests.harness.http_server import StartServer
from tests.harness.pictures import encode
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.cli.app import app

PHOTO = "data:image/png;base64," + base64.b64encode(encode(np.ones((8, 8, 3), np.uint8))).decode()


class House:
    """A project of Label Studio's, and the command that predicts it."""

    def __init__(self, serve: StartServer, environment: dict[str, str], cwd: Path) -> None:
        self.label_studio = LabelStudio({}, BCCD_CONFIG, PHOTO)
        self.label_studio.server = serve(self.label_studio)
        self.cwd = cwd
        self.environment = environment | {
            "LABEL_STUDIO_URL": self.label_studio.server.url,
            "LABEL_STUDIO_API_KEY": TOKEN,
            "MODEL_IMAGE_SIZE": "32",
            "ENGINE": "torch",
        }

    def run(self, tasks: int, *options: str | Path) -> Done:
        """The command on a project of so many tasks that hold nothing."""
        self.label_studio.predictions = {number: [] for number in range(1, tasks + 1)}
        return run_command("prelabel", "-p", str(PROJECT), *options, environment=self.environment, cwd=self.cwd)


@pytest.fixture
def house(serve: StartServer, bccd_environment: dict[str, str], tmp_path: Path) -> House:
    return House(serve, bccd_environment, tmp_path)


def test_a_refused_token_ends_it_and_what_is_stored_is_told(house: House) -> None:
    house.label_studio.faults.extend(["", "401"])
    done = house.run(500, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["stored"] == 200
    assert done.stderr == "Label Studio refuses the token (401): check LABEL_STUDIO_API_KEY\n"
    assert TOKEN not in done.stdout + done.stderr


def test_other_labels_end_it(house: House) -> None:
    def change() -> None:
        house.label_studio.label_config = BCCD_CONFIG.replace('<Label value="RBC"/>', "")

    house.label_studio.before_import = change
    done = house.run(500)
    assert done.returncode == 2
    assert "200 predictions stored" in done.stdout
    assert done.stderr == "The project's labels changed meanwhile: run it again, with the new ones\n"


def test_many_failures_of_one_reason_are_told_together(house: House) -> None:
    house.label_studio.image = "nothing"
    done = house.run(45)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("0 of 45 tasks predicted, 0 predictions stored")
    assert lines[1].startswith("45 tasks are not predicted: the task's value is neither an address")
    assert len(lines) == 2 + 20 + 1
    assert lines[-1] == "  and 25 more, which --json lists"


@pytest.mark.parametrize(
    ("label_config", "weights", "expected"),
    [
        (
            BCCD_CONFIG.replace("RBC", "x").replace("WBC", "y").replace("Platelets", "z"),
            None,
            "None of the labels x, y",
        ),
        ("<View/>", None, "no control on an Image that can be served, such as RectangleLabels"),
        (BCCD_CONFIG, "missing.pt", "missing.pt"),
    ],
)
def test_what_cant_be_served_is_one_line(label_config: str, weights: str | None, expected: str, house: House) -> None:
    house.label_studio.label_config = label_config
    house.environment |= {"MODEL_NAME": weights} if weights else {}
    done = house.run(3)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


def test_help_has_examples() -> None:
    done = CliRunner().invoke(app, ["prelabel", "--help"])
    assert done.exit_code == 0
    assert "yolo-backend prelabel --project 7 --limit 10 --out pictures" in done.stdout
