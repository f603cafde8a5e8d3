"""A kind of control that exists in tests only: the commands write its regions into the real Label Studio."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.fakes.ellipses import ellipse_config, serve_ellipses
from tests.harness.command import run_json
from tests.harness.http_server import ServedFolder
from tests.harness.studio_client import StudioClient
from yolo_backend.labels.regions import count_boxes

CONFIG = ellipse_config('model_pupil="true"')


@pytest.fixture(autouse=True)
def ellipses(monkeypatch: pytest.MonkeyPatch) -> None:
    serve_ellipses(monkeypatch)


def test_its_regions_are_stored_and_drawn(
    client: StudioClient,
    image_server: ServedFolder,
    bccd_files: list[Path],
    command_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    (image_server.path / "ellipses.jpg").write_bytes(bccd_files[0].read_bytes())
    project = client.create_project("ellipses", CONFIG)
    client.import_tasks(project, [{"data": {"image": f"{image_server.url}/ellipses.jpg"}}])
    environment, pictures = command_environment | {"ENGINE": "torch", "MODEL_IMAGE_SIZE": "320"}, tmp_path / "pictures"

    report = run_json("prelabel", "-p", str(project), "--out", pictures, environment=environment, cwd=tmp_path)

    assert (report["predicted"], report["stored"], report["failed"]) == (1, 1, [])
    ((prediction,),) = client.predictions(project).values()
    assert prediction["model_version"] == report["model_version"]
    assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []
    wholes = [region for region in prediction["result"] if "parentID" not in region]
    assert len(prediction["result"]) == 2 * len(wholes) == 2 * count_boxes(prediction["result"]) > 10
    assert {region["type"] for region in prediction["result"]} == {"ellipselabels"}
    (picture,) = pictures.iterdir()
    with Image.open(picture) as drawn, Image.open(bccd_files[0]) as photo:
        difference = np.abs(np.asarray(drawn).astype(int) - np.asarray(photo.convert("RGB"))).max(axis=2)
    for region in wholes:  # away from lines, JPEG makes a difference of a few
        value = region["value"]
        for turn in (45, 135, 225, 315):
            x = (value["x"] + value["radiusX"] * math.cos(math.radians(turn))) / 100 * 640
            y = (value["y"] + value["radiusY"] * math.sin(math.radians(turn))) / 100 * 480
            assert difference[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3].max() > 40


def test_labels_of_files_become_its_regions(
    client: StudioClient, bccd_files: list[Path], command_environment: dict[str, str], tmp_path: Path
) -> None:
    project = client.create_project("imported ellipses", CONFIG)
    box = {"label": "WBC", "x": 64, "y": 48, "width": 128, "height": 96}
    labels = tmp_path / "old.jsonl"
    labels.write_text(json.dumps({"image": bccd_files[0].name, "boxes": [box]}))

    told = run_json(
        *("register", str(bccd_files[0]), "-p", str(project), "--labels", labels),
        environment=command_environment,
        cwd=tmp_path,
    )

    assert (told["registered"], told["boxes"]) == (1, 1)
    ((prediction,),) = client.predictions(project).values()
    whole, pupil = prediction["result"]
    assert {key: whole["value"][key] for key in ("x", "y", "radiusX", "radiusY")} == {
        "x": 20, "y": 20, "radiusX": 10, "radiusY": 10
    }  # fmt: skip
    assert pupil["parentID"] == whole["id"]
