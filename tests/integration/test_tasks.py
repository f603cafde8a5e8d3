"""Tasks to regions with the real model of blood cells."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.fakes.weights import fake_catalog
from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detector import BULK
from yolo_backend.detection.engine import Engine
from yolo_backend.labels.plans import make_plan
from yolo_backend.protocol import Task
from yolo_backend.serving.task import TaskPredictor
from yolo_backend.settings import load_settings

BLOOD = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"
model_score_threshold="{}"><Label value="RBC"/><Label value="WBC"/></RectangleLabels></View>"""


def remembered() -> float:
    return REGISTRY.get_sample_value("yolo_remembered_images_total") or 0.0


def asking(catalog: Catalog, **settings: Any) -> Callable[[str, str], list[dict[str, Any]]]:
    """What asks for the regions of an image with a labeling config, without their random ids."""
    made = load_settings(model_name="fake.pt", **settings)
    tasks = TaskPredictor(made, catalog.pool, 4)

    def ask(value: str, config: str) -> list[dict[str, Any]]:
        task: Task = {"id": 7, "data": {"image": value}}
        prediction = tasks.predict_task(task, make_plan(config, made, catalog, 60), None, BULK, project="1")
        assert isinstance(prediction, dict), prediction
        return [{key: value for key, value in region.items() if key != "id"} for region in prediction["result"]]

    return ask


@pytest.fixture(scope="module")
def blood_catalog(bccd_weights: Path) -> Iterator[Catalog]:
    """The real model of blood cells."""
    engine = Engine(bccd_weights, device="cpu")
    catalog = fake_catalog(lambda _: engine)
    catalog.wait_for_info("fake.pt", 60)
    yield catalog
    catalog.close()


def test_any_threshold_gives_what_detecting_at_it_gives(blood_catalog: Catalog, bccd_files: list[Path]) -> None:
    ask, ask_forgetful = asking(blood_catalog), asking(blood_catalog, cache_megabytes=0)
    counts = []
    for file in bccd_files[::6]:
        value = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
        before = remembered()
        for threshold, hits in ((0.5, 0), (0.25, 1), (0.12, 2), (0.01, 2), (0.02, 3), (0.3, 4), (0.005, 4)):
            found = ask(value, BLOOD.format(threshold))
            assert remembered() - before == hits
            expected = ask_forgetful(value, BLOOD.format(threshold))
            assert found == expected
            counts.append(len(found))
    assert min(counts) > 0
    assert max(counts) > 3 * min(counts)
