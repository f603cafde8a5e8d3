"""Pose weights are trained on boxes with key points, by the whole way: read, fitted, judged, promoted, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.labelled_label_studio import PROJECT
from tests.fakes.posed_label_studio import SIZE_WH, THINGS, PosedLabelStudio, pose_config, scene_of
from tests.harness.http_server import StartServer
from tests.harness.shapes import POINT_NAMES, shapes_weights
from tests.harness.training_house import House
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.trained import trained_name
from yolo_backend.labels.plans import UNTRAINED, ServedControl, make_plan
from yolo_backend.labels.regions import make_regions
from yolo_backend.serving.request import open_catalog
from yolo_backend.training.records import Options

pytestmark = pytest.mark.alone


@pytest.fixture
def studio() -> PosedLabelStudio:
    return PosedLabelStudio(scenes=44)


@pytest.fixture
def posed(serve: StartServer, studio: PosedLabelStudio, tmp_path: Path) -> Iterator[House]:
    house = House(serve, shapes_weights("pose"), tmp_path, studio)
    yield house
    for training in house.started:
        training.cancel()


def served_by(house: House) -> ServedControl:
    settings = house.settings.model_copy(update={"training": "on"})
    catalog = open_catalog(settings)
    try:
        plan = make_plan(pose_config(), settings, catalog, None, trained=trained_name(house.models.key))
    finally:
        catalog.close(5)
    (served,) = plan.controls
    return served


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(1800)
def test_key_points_are_learned_judged_and_served_and_poison_is_refused(posed: House, studio: PosedLabelStudio) -> None:
    options = Options(shapes_weights("pose").name, minutes=1, image_size=160)
    first = posed.start(options).wait()
    print(first)
    assert first.result, first.failure
    assert first.result.promoted, first.result.reason
