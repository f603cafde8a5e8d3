"""Which regions of a lowered plan are measured, and which of them the server shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.weights import fake_catalog
from yolo_backend.detection.detections import Detections
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.plans import make_plan
from yolo_backend.labels.regions import make_regions, task_score
from yolo_backend.sampling.thresholds import as_served, lower_thresholds, measured
from yolo_backend.settings import load_settings


@pytest.mark.parametrize(
    "tags",
    [
        '<PolygonLabels name="l" toName="i" model_parts="all"><Label value="car"/></PolygonLabels>',
        '<Labels name="l" toName="i"><Label value="car"/></Labels><Polygon name="p" toName="i" model_parts="all"/>',
    ],
)
def test_a_thing_of_several_parts_is_measured_once_and_served_with_all(
    clean_environment: pytest.MonkeyPatch, tags: str
) -> None:
    catalog = fake_catalog(lambda name: FakeEngine(replace(info_of(name), kind="segment")))
    config = f'<View><Image name="i" value="$i"/>{tags}</View>'
    plan = make_plan(config, load_settings(model_name="fake.pt"), catalog, 10)
    lowered = lower_thresholds(plan, 0.1)
    bitmap = np.zeros((20, 60), np.bool_)
    bitmap[2:18, 2:18] = bitmap[2:18, 22:38] = bitmap[2:18, 42:58] = True
    masks = (Mask.of_bitmap(bitmap),) * 2
    boxes = np.array([[0, 0, 60, 20]] * 2, np.float32)
    found = Detections(boxes, np.array([0.9, 0.2], np.float32), np.zeros(2, np.int64), masks=masks)
    (served,) = lowered.controls
    regions: list[Any] = make_regions(found, served.control, served.label_map, (60, 20), None)
    assert sum("points" in region["value"] for region in regions if region["type"] != "labels") == 6
    assert [round(region["score"], 6) for region in measured(regions, plan)] == [0.9, 0.2]
    prediction: Any = {"result": regions, "score": task_score(regions), "model_version": plan.model_version}
    shown = as_served(prediction, plan)["result"]
    assert shown == [region for region in regions if region["score"] > 0.25]
    assert len({region["id"] for region in shown}) == 3
    catalog.close()
