"""Tasks to regions with the real model of blood cells."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from yolo_backend.detection.batching import BULK, ModelPool
from yolo_backend.detection.engine import Engine
from yolo_backend.plans import make_plan
from yolo_backend.settings import load_settings
from yolo_backend.tasks import TaskPredictor

BLOOD = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"
model_score_threshold="{}"><Label value="RBC"/><Label value="WBC"/></RectangleLabels></View>"""


def remembered() -> float:
    return REGISTRY.get_sample_value("yolo_remembered_images_total") or 0.0


def asking(pool: ModelPool, **settings: Any) -> Callable[[str, str], list[dict[str, Any]]]:
    """What asks for the regions of an image with a labeling config, without their random ids."""
    made = load_settings(model_name="fake.pt", **settings)
    tasks = TaskPredictor(made, pool, 4)

    def ask(value: str, config: str) -> list[dict[str, Any]]:
        task = {"id": 7, "data": {"image": value}}
        prediction = tasks.predict(task, make_plan(config, made, pool, 60), None, BULK, project="1")
        assert isinstance(prediction, dict), prediction
        return [{key: value for key, value in region.items() if key != "id"} for region in prediction["result"]]

    return ask


@pytest.fixture(scope="module")
def blood_pool(bccd_weights: Path) -> Iterator[ModelPool]:
    """The real model of blood cells."""
    engine = Engine(bccd_weights, device="cpu")
    pool = ModelPool(lambda _: engine, max_models=1, batch_size=4)
    pool.wait_for_info("fake.pt", 60)
    yield pool
    pool.close()


def test_any_threshold_gives_what_detecting_at_it_gives(blood_pool: ModelPool, bccd_files: list[Path]) -> None:
    ask, ask_forgetful = asking(blood_pool), asking(blood_pool, cache_megabytes=0)
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
