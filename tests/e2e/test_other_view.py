"""A view that exists in tests only: a command and a click bring what it shows of images into the real Label Studio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import requests
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray

from tests.fakes.halves import boxes_in_halves, serve_halves
from tests.harness.app_here import app_here, text_of_page, wait_for_title
from tests.harness.command import run_json
from tests.harness.http_server import ServedFolder
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, boxes
from yolo_backend.detection.engine import Engine

COUNT = 2


@pytest.fixture
def environment(clean_environment: pytest.MonkeyPatch, command_environment: dict[str, str]) -> dict[str, str]:
    """The settings of a backend in the runtime that we compare with."""
    return command_environment | {"ENGINE": "torch", "DEVICE": "cpu"}


@pytest.fixture
def project(client: StudioClient, image_server: ServedFolder, bccd_files: list[Path]) -> int:
    """A task for each of the first photographs."""
    made = client.create_project("halves")
    for path in bccd_files[:COUNT]:
        (image_server.path / path.name).write_bytes(path.read_bytes())
    addresses = [f"{image_server.url}/{path.name}" for path in bccd_files[:COUNT]]
    client.import_tasks(made, [{"data": {"image": address}} for address in addresses])
    return made


@pytest.fixture
def whole_version(environment: dict[str, str], project: int, tmp_path: Path) -> str:
    """The version of what is found where images are shown as a whole."""
    outlook = run_json("prelabel", "-p", str(project), "--dry-run", environment=environment, cwd=tmp_path)
    return str(outlook["model_version"])


@pytest.fixture
def in_halves(bccd_weights: Path, bccd_images: list[NDArray[np.uint8]]) -> list[list[tuple[str, list[float]]]]:
    """What is found in the halves of each photograph, put side by side."""
    engine = Engine(bccd_weights, device="cpu", engine="torch")
    return [boxes_in_halves(engine, image) for image in bccd_images[:COUNT]]


def assert_stored(
    client: StudioClient, project: int, model_version: str, expected: list[list[tuple[str, list[float]]]]
) -> None:
    for task, in_image in zip(client.tasks(project), expected, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == model_version
        assert LabelInterface(BCCD_CONFIG).validate_prediction(prediction, return_errors=True) == []
        found = boxes(prediction)
        assert [label for label, *_ in found] == [label for label, _ in in_image]
        in_percent = [[*place, 100 * score] for _, *place, score in found]
        np.testing.assert_allclose(in_percent, [box for _, box in in_image], atol=0.02)
        assert {x + width / 2 > 50 for _, (x, _, width, *_) in in_image} == {True, False}  # some in each half


def test_prelabel_stores_what_is_found_in_the_parts(
    environment: dict[str, str],
    project: int,
    client: StudioClient,
    whole_version: str,
    in_halves: list[list[tuple[str, list[float]]]],
    clean_environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve_halves(clean_environment)

    report = run_json("prelabel", "-p", str(project), environment=environment, cwd=tmp_path)

    assert (report["predicted"], report["stored"], report["failed"]) == (COUNT, COUNT, [])
    assert report["model_version"] != whole_version
    assert_stored(client, project, report["model_version"], in_halves)


def test_a_click_brings_it_and_the_status_page_shows_it(
    environment: dict[str, str],
    project: int,
    client: StudioClient,
    whole_version: str,
    in_halves: list[list[tuple[str, list[float]]]],
    clean_environment: pytest.MonkeyPatch,
) -> None:
    serve_halves(clean_environment)
    with app_here(clean_environment, environment) as url:
        client.connect(project, url)
        client.retrieve_predictions(project)
        wait_for_title(url, project)
        page = text_of_page(url)
        (connected,) = requests.get(url, timeout=10).json()["projects"]

    version = connected["model_version"]
    assert version != whole_version
    assert_stored(client, project, version, in_halves)
    assert page.startswith("YOLO backend Ready ")
    for shown in (
        "Weights bccd.pt Device cpu Engine torch ",
        f"halves (project {project}) {version} 100% 100% {COUNT} of {COUNT} tasks · finished",
        f" {COUNT} predicted, 0 failed ",
        f"halves (project {project}) {version} seen ",
        " Last errors None. ",
    ):
        assert shown in page
