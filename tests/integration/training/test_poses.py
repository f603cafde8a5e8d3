"""Pose weights are trained on boxes with key points: read, fitted, judged, promoted, and served by the same control."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from PIL import Image

from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT
from tests.fakes.posed_label_studio import (
    SIZE_WH,
    THINGS,
    PosedLabelStudio,
    pose_config,
    scene_of,
)
from tests.harness.http_server import StartServer
from tests.harness.shapes import POINT_NAMES, shapes_weights
from tests.harness.training_house import House
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.trained import trained_name
from yolo_backend.labels.plans import UNTRAINED, ProjectPlan, make_plan
from yolo_backend.protocol import Region, sent_project
from yolo_backend.serving.request import Predictor, open_catalog
from yolo_backend.settings import load_settings
from yolo_backend.training.annotations import regions_by_image
from yolo_backend.training.dataset import write_dataset
from yolo_backend.training.finding import find_boxes
from yolo_backend.training.fitting import FitSpec, fit
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.networks import Base, read_base
from yolo_backend.training.poses import read_poses
from yolo_backend.training.records import Options
from yolo_backend.training.registry import Registry
from yolo_backend.training.snapshot import trained_controls

BASE = shapes_weights("pose")
_OPTIONS = Options(BASE.name, minutes=1.5, image_size=160)


@pytest.fixture(scope="module")
def base() -> Base:
    return read_base(BASE)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """Six scenes, as somebody labelled them."""
    folder = tmp_path_factory.mktemp("scenes")
    return [labelled(number, folder) for number in range(101, 107)]


def labelled(number: int, folder: Path) -> LabelledImage:
    file = folder / f"{number}.png"
    Image.fromarray(scene_of(number).image).save(file)
    annotation = {"result": PosedLabelStudio(scenes=1).regions(number)}
    ((_, regions),) = regions_by_image(annotation, trained_controls(pose_config(), "pose")).items()
    found: Any = regions
    boxes = read_poses(found, SIZE_WH).boxes
    return LabelledImage(number, number, file.name, f"{number:064x}", number, file, SIZE_WH, boxes)


def test_what_people_drew_is_what_is_read(images: list[LabelledImage]) -> None:
    read = seen = 0
    for image in images:
        for drawn, thing in zip(image.boxes, scene_of(image.task_id).things, strict=True):
            assert drawn.label == THINGS[thing.class_id]
            np.testing.assert_allclose(drawn.box_xyxy, thing.box_xyxy, atol=1e-6)
            seen += int((~thing.are_hidden).sum())
            for number, point in enumerate(drawn.points):
                if point is not None:
                    read += 1
                    np.testing.assert_allclose(point, thing.points_xy[number], atol=1e-6)
    assert 0.9 * seen < read <= seen, "a few lie in several boxes, and below none"


def fitted(base: Base, images: list[LabelledImage], folder: Path, points: int) -> Path:
    data = write_dataset(folder / "data", images, images[:2], THINGS, kind="pose", points=points)
    weights = folder / "weights.pt"
    assert fit(FitSpec(data, base, {"Reif": (1,)}, weights, 600, image_size=96, steps=3, batch=3)).weights == weights
    return weights


def test_pose_weights_are_fitted_and_keep_what_the_base_knows_of_points(
    base: Base, images: list[LabelledImage], tmp_path: Path
) -> None:
    """A few steps: nothing is learned by them, but what it began with is still there."""
    assert (base.kind, base.points) == ("pose", 3)
    again = read_base(fitted(base, images, tmp_path, 3))
    assert (again.kind, again.points, again.class_names) == ("pose", 3, dict(enumerate(THINGS)))
    for ours, theirs in zip(again.network.model[-1].cv4, base.network.model[-1].cv4, strict=True):
        assert torch.nn.functional.cosine_similarity(ours[-1].weight.flatten(), theirs[-1].weight.flatten(), 0) > 0.95
    settings = load_settings(model_dir=tmp_path / "models", device="cpu", engine="torch", model_image_size=160)
    engine = Engine.as_set(tmp_path / "weights.pt", settings)
    assert engine.info.points == 3
    found = find_boxes(engine, images, {0: ("Riegel",), 1: ("Reif",)}, max_megapixels=10, points=4)
    shapes = [each.points_xy.shape for each in found.images if each.points_xy is not None]
    assert shapes == [(len(each.labels), 4, 2) for each in found.images]
    known = np.concatenate([each.points_xy for each in found.images if each.points_xy is not None])
    assert len(known)
    assert not np.isnan(known[:, :3]).any()
    assert np.isnan(known[:, 3]).all(), "of a point that it doesn't know, nothing is said"


def test_weights_for_more_points_have_layers_of_their_own(
    base: Base, images: list[LabelledImage], tmp_path: Path
) -> None:
    drawn = [
        replace(image, boxes=tuple(replace(box, points=(*box.points, box.box_xyxy[:2])) for box in image.boxes))
        for image in images
    ]
    again = read_base(fitted(base, drawn, tmp_path, 4))
    assert again.points == 4
    assert again.network.yaml["kpt_shape"] == [4, 3]


# The whole way


class FourPointed(PosedLabelStudio):
    """With a label for a fourth point, of which the base knows nothing."""

    def label_config(self) -> str:
        return pose_config(points=(*POINT_NAMES, "top"))


def test_that_the_base_has_too_few_points_is_told(serve: StartServer, tmp_path: Path) -> None:
    """A hasty run: its scores may be bad, and this is why."""
    house = House(serve, BASE, tmp_path, FourPointed(scenes=12))
    run = house.train_here(replace(_OPTIONS, minutes=0.02))
    assert run.result, run.failure
    assert (
        "shapes-pose.pt finds 3 key points of a thing, and the labels have 4: what it knows of points can't be used, "
        "so all are learned from the beginning, which takes more images and minutes"
    ) in run.remarks


@pytest.fixture
def posed(serve: StartServer, tmp_path: Path) -> House:
    return House(serve, BASE, tmp_path, PosedLabelStudio(scenes=44))


def plan_of(house: House) -> ProjectPlan:
    settings = house.settings.model_copy(update={"training": "on", "model_image_size": 160})
    keys = [models.key for models in Registry(settings.model_dir).projects()]
    with closing(open_catalog(settings)) as catalog:
        return make_plan(pose_config(), settings, catalog, None, trained=trained_name(keys[0]) if keys else None)


def predicted(house: House, numbers: Sequence[int]) -> list[Any]:
    """What the server answers for tasks that nobody labelled."""
    settings = house.settings.model_copy(update={"training": "on", "model_image_size": 160})
    tasks: Any = [{"id": number, "data": house.studio.task(number)["data"]} for number in numbers]
    project = sent_project(PROJECT, CREATED_AT)
    with closing(Predictor(settings)) as predictor:
        ends_at = time.monotonic() + 60
        while not all(answers := predictor.predict(tasks, pose_config(), project=project)):
            assert time.monotonic() < ends_at, answers
    return answers


def distances_px(regions: Sequence[Region], label: str, place_xy: NDArray[np.float64]) -> list[float]:
    """From all predicted points of this label to a place."""
    values: list[Any] = [region["value"] for region in regions if region["type"] == "keypointlabels"]
    places = [(value["x"], value["y"]) for value in values if value["keypointlabels"] == [label]]
    return [float(np.hypot(*(np.multiply(place, SIZE_WH) / 100 - place_xy))) for place in places]


@pytest.mark.alone
@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_key_points_are_learned_judged_and_served_and_poison_is_refused(posed: House) -> None:
    assert plan_of(posed).model_version == UNTRAINED
    first = posed.train_here(_OPTIONS)
    assert first.result, first.failure
    assert first.result.promoted, first.result.reason
    assert first.result.reason.startswith("Nothing else serves these labels, and it finds more than chance does")
    assert first.kind == "pose"
    assert first.result.labels.keys() == set(THINGS)
    plan = plan_of(posed)
    assert plan.model_version == first.result.model_version
    (served,) = plan.controls
    assert served.label_map.labels_without_class == ()
    assert sorted(served.label_map.label_of_class.values()) == sorted(THINGS)

    found = there = 0
    numbers = range(200, 212)
    for number, answer in zip(numbers, predicted(posed, numbers), strict=True):
        assert answer["model_version"] == first.result.model_version
        regions = answer["result"]
        assert LabelInterface(pose_config()).validate_prediction(answer, return_errors=True) == []
        for thing in scene_of(number).things:
            for index in np.flatnonzero(~thing.are_hidden).tolist():
                there += 1
                distances = distances_px(regions, POINT_NAMES[index], thing.points_xy[index])
                found += any(px <= 0.15 * thing.box_xywhr[2] for px in distances)
    print(f"{found} of {there} points in images that nobody labelled")
    assert found / there > 0.3  # 34 and 36 of 77 were seen

    second = posed.train_here(replace(_OPTIONS, seed=1))
    assert second.result, second.failure
    assert second.result.map50.current == pytest.approx(first.result.map50.candidate, abs=0.01)
    assert second.verdict in {"promote", "refuse"}

    assert isinstance(posed.studio, PosedLabelStudio)
    posed.studio.poison = "places"
    poisoned = posed.train_here(replace(_OPTIONS, seed=2))
    assert poisoned.result, poisoned.failure
    assert poisoned.verdict == "refuse"
    assert "validation images changed; the serving model fell from" in poisoned.result.reason


@pytest.mark.alone
@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("poison", "reason"),
    [("labels", "It tells labels apart no better than chance"), ("points", "It tells key points apart no better than")],
)
def test_a_first_model_of_poison_is_refused(posed: House, poison: Literal["labels", "points"], reason: str) -> None:
    """By OKS, half of what the second one finds are hits: all points in the middle of a thing are near enough."""
    assert isinstance(posed.studio, PosedLabelStudio)
    posed.studio.poison = poison
    run = posed.train_here(replace(_OPTIONS, minutes=0.6))
    assert run.result, run.failure
    assert run.verdict == "refuse"
    assert run.result.reason.startswith(reason)
