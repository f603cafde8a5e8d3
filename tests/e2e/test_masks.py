"""Segmentation weights and a real Label Studio: masks as polygons and as brushes, by `prelabel` and `sample`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from PIL import Image

from tests.harness.command import run_json
from tests.harness.http_server import ServedFolder
from tests.harness.shapes import CLASS_NAMES, draw_shapes, shapes_weights
from tests.harness.studio_client import StudioClient
from yolo_backend.labels.outlines import is_simple, mask_of
from yolo_backend.labels.regions import count_boxes

SIZE_WH = (640, 480)
SEEDS = (0, 1, 2)
Bitmap = NDArray[np.bool_]

LABELS = "".join(f'<Label value="{name}"/>' for name in CLASS_NAMES)
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    f'<PolygonLabels name="outline" toName="image" model_parts="all">{LABELS}</PolygonLabels>'
    f'<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels>'
    f'<EllipseLabels name="round" toName="image">{LABELS}</EllipseLabels></View>'
)


def pixels_of(region: Mapping[str, Any]) -> Bitmap:
    width, height = SIZE_WH
    if "rle" in region["value"]:
        return np.asarray(brush.decode_rle(region["value"]["rle"]).reshape(height, width, 4)[:, :, 3] > 127)
    points = np.array(region["value"]["points"])
    assert is_simple(points)
    mask = mask_of(points * SIZE_WH / 100, SIZE_WH)
    left, top, window_width, window_height = mask.window_xywh
    image = np.zeros((height, width), np.bool_)
    image[top : top + window_height, left : left + window_width] = mask.bitmap()
    return image


def iou_of(one: Bitmap, other: Bitmap) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def environment(command_environment: dict[str, str]) -> dict[str, str]:
    weights = shapes_weights("segment")
    own = {"MODEL_ROOT": str(weights.parent), "MODEL_NAME": weights.name, "ENGINE": "torch"}
    return {**command_environment, **own}


def test_polygons_and_brushes_of_one_mask_are_the_same_thing(
    client: StudioClient, image_server: ServedFolder, environment: dict[str, str], tmp_path: Path
) -> None:
    scenes = [draw_shapes(seed, SIZE_WH) for seed in SEEDS]
    project = client.create_project("masks", CONFIG)
    for seed, scene in zip(SEEDS, scenes, strict=True):
        Image.fromarray(scene.image).save(image_server.path / f"masks-{seed}.png")
        client.import_tasks(project, [{"data": {"image": f"{image_server.url}/masks-{seed}.png"}}])

    report = run_json("prelabel", "-p", str(project), "--out", tmp_path / "out", environment=environment, cwd=tmp_path)

    assert (report["predicted"], report["stored"], report["failed"]) == (3, 3, [])
    assert len(list((tmp_path / "out").iterdir())) == 3
    seen = 0
    for task, scene in zip(client.tasks(project), scenes, strict=True):
        (prediction,) = task["predictions"]
        assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []
        by_control = {
            name: [region for region in prediction["result"] if region["from_name"] == name]
            for name in ("outline", "mask", "round")
        }
        outlines = [
            [region, *(part for part in by_control["outline"] if part.get("parentID") == region["id"])]
            for region in by_control["outline"]
            if "parentID" not in region
        ]
        assert (
            len(outlines) == len(by_control["mask"]) == len(by_control["round"]) == count_boxes(by_control["outline"])
        )
        for parts, mask in zip(outlines, by_control["mask"], strict=True):
            assert parts[0]["score"] == mask["score"]
            painted = pixels_of(mask)
            drawn = np.any([pixels_of(part) for part in parts], axis=0)
            assert iou_of(drawn, painted) > 0.95
            if mask["score"] > 0.6:
                assert max(iou_of(painted, thing.mask) for thing in scene.things) > 0.6
                seen += 1
    assert seen >= 3


def test_sample_chooses_and_draws_them(
    client: StudioClient, image_server: ServedFolder, environment: dict[str, str], tmp_path: Path
) -> None:
    project = client.create_project("sampled masks", CONFIG)
    for seed in SEEDS:
        path = image_server.path / f"sampled-{seed}.png"
        Image.fromarray(draw_shapes(seed, SIZE_WH).image).save(path)
        client.import_tasks(project, [{"data": {"image": f"{image_server.url}/{path.name}"}}])
    arguments = ("sample", "-p", str(project), "-n", "2", "--report", tmp_path / "report")
    told = run_json(*arguments, environment=environment, cwd=tmp_path)
    assert len(told["chosen"]) == 2
    assert all(chosen["uncertainty"] >= 0 for chosen in told["chosen"])
    assert any(path.suffix in {".jpg", ".png"} for path in (tmp_path / "report").rglob("*"))
