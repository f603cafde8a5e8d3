"""A kind of weights that exists in tests only: a command and a click bring what it finds into the real Label Studio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import requests
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.fakes.stars import SIZE, STARS, WHITE_IN_PERCENT, gray, serve_stars, write_star_weights
from tests.harness.app_here import app_here, text_of_page, wait_for_title
from tests.harness.command import run_json
from tests.harness.http_server import ServedFolder
from tests.harness.pictures import encode
from tests.harness.studio_client import StudioClient, boxes

BRIGHTNESSES = (1.0, 0.6, 0.0)


@pytest.fixture
def environment(
    clean_environment: pytest.MonkeyPatch, command_environment: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    """The settings of a backend whose weights are of this kind."""
    serve_stars(clean_environment)
    weights = write_star_weights(tmp_path / "weights" / "stars.onnx")
    return command_environment | {"MODEL_NAME": weights.name, "MODEL_ROOT": str(weights.parent), "DEVICE": "cpu"}


@pytest.fixture
def project(client: StudioClient, image_server: ServedFolder) -> int:
    """A task for each brightness of an image."""
    made = client.create_project("stars", STARS)
    for number, brightness in enumerate(BRIGHTNESSES):
        (image_server.path / f"sky-{number}.png").write_bytes(encode(gray(brightness, 3 * SIZE)))
    names = [f"sky-{number}.png" for number in range(len(BRIGHTNESSES))]
    client.import_tasks(made, [{"data": {"image": f"{image_server.url}/{name}"}} for name in names])
    return made


def assert_stored(client: StudioClient, project: int, model_version: str) -> None:
    """Each task has a prediction of this version: a star and a comet, smaller and less certain in a darker image."""
    for task, brightness in zip(client.tasks(project), BRIGHTNESSES, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == model_version
        assert LabelInterface(STARS).validate_prediction(prediction, return_errors=True) == []
        found = boxes(prediction)
        assert [label for label, *_ in found] == (["star", "comet"] if brightness else [])
        for (_, *place, score), (_, in_white), most in zip(found, WHITE_IN_PERCENT, (0.9, 0.8), strict=False):
            assert place == pytest.approx([brightness * number for number in in_white], abs=0.01)
            assert score == pytest.approx(brightness * most, abs=0.001)


def test_prelabel_stores_and_draws_what_it_finds(
    environment: dict[str, str], project: int, client: StudioClient, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"

    report = run_json("prelabel", "-p", str(project), "--out", pictures, environment=environment, cwd=tmp_path)

    assert (report["predicted"], report["stored"], report["failed"]) == (3, 3, [])
    assert report["model_version"].startswith("stars-")
    assert_stored(client, project, report["model_version"])
    (white,) = pictures.glob("*-sky-0.jpg")
    with Image.open(white) as picture:
        drawn = np.asarray(picture.convert("L")).astype(int)
    for _, (x, y, width, height) in WHITE_IN_PERCENT:
        left, top, right, bottom = (round(side / 100 * 3 * SIZE) for side in (x, y, x + width, y + height))
        for column, row in ((left, bottom), (right, bottom), (left, (top + bottom) // 2)):
            assert drawn[row - 2 : row + 3, column - 2 : column + 3].min() < 215


def test_a_click_brings_it_and_the_status_page_shows_it(
    environment: dict[str, str], project: int, client: StudioClient, clean_environment: pytest.MonkeyPatch
) -> None:
    with app_here(clean_environment, environment) as url:
        client.connect(project, url)
        client.retrieve_predictions(project)
        wait_for_title(url, project)
        page = text_of_page(url)
        (connected,) = requests.get(url, timeout=10).json()["projects"]

    version = connected["model_version"]
    assert version.startswith("stars-")
    assert_stored(client, project, version)
    assert page.startswith("YOLO backend Ready ")
    for shown in (
        "Weights stars.onnx Device cpu ",
        f" Task star Image size {SIZE} × {SIZE} 2 classes comet, star ",
        f"stars (project {project}) {version} 100% 100% 3 of 3 tasks · finished",
        " 3 predicted, 0 failed ",
        f"stars (project {project}) {version} seen ",
        " star star 0.25 comet comet 0.25 ",
        " Last errors None. ",
    ):
        assert shown in page
