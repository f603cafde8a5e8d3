"""A label that is added later, and taken out again: what the model knew of the others stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.labelled_label_studio import LABELS
from tests.harness.training_house import House
from yolo_backend.demo.scenes import draw_scene
from yolo_backend.detection.engine import Engine
from yolo_backend.training.finding import find_boxes
from yolo_backend.training.labelled import LabelledBox, LabelledImage
from yolo_backend.training.matching import IOUS, TrueBoxes, match_all
from yolo_backend.training.records import Options
from yolo_backend.training.scores import Resampled, resample, score

pytestmark = [pytest.mark.alone, pytest.mark.proof, pytest.mark.training_proof, pytest.mark.timeout(3600)]

_OLD = LABELS[:2]
_NEW = LABELS[2]
_OPTIONS = Options("bccd.pt", minutes=1, image_size=160, promote="always")


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    """60 scenes that no training has."""
    folder = tmp_path_factory.mktemp("unseen")
    return [labelled(seed, folder / f"{seed}.jpg") for seed in range(80_000, 80_060)]


def labelled(seed: int, file: Path) -> LabelledImage:
    scene = draw_scene(seed)
    Image.fromarray(scene.image).save(file, quality=90)
    boxes = tuple(
        LabelledBox(
            LABELS[class_id], (left, top, right, bottom),
            ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.0),
        )
        for class_id, (left, top, right, bottom) in zip(scene.class_ids, scene.boxes_xyxy.tolist(), strict=True)
    )  # fmt: skip
    return LabelledImage(seed, seed, file.name, f"{seed}", 0, file, scene.size_wh, boxes)


def test_old_labels_keep_their_average_precision(house: House, unseen: list[LabelledImage]) -> None:
    house.studio.scenes = 40
    house.studio.config_labels = house.studio.drawn = _OLD
    before = trained(house, _OLD, _OLD, unseen)
    house.studio.config_labels, house.studio.drawn = (_NEW, *_OLD), None
    with_more = trained(house, LABELS, LABELS, unseen)
    house.studio.config_labels = _OLD  # its boxes are still in the annotations
    without_it = trained(house, _OLD, LABELS, unseen)
    told = ", ".join(f"{each.value:.3f} {each.interval}" for each in (before, with_more, without_it))
    print(f"AP50 of {' and '.join(_OLD)}: {told}")
    assert before.value > 0.3, "it learns something at all"
    assert with_more.value >= before.interval[0], told
    assert without_it.value >= before.interval[0], told


def trained(house: House, names: tuple[str, ...], order: tuple[str, ...], unseen: list[LabelledImage]) -> Resampled:
    """The mean AP50 of the old labels on what the model of a new run never saw, and how sure that is.

    `names` are the classes that it should have, `order` the labels that should be known by then.
    """
    run = house.start(_OPTIONS).wait()
    assert run.state == "ended", run.failure
    engine = Engine.as_set(house.models.file, house.settings.model_copy(update={"model_image_size": 160}))
    assert tuple(engine.info.class_names.values()) == names, "in the order in which they were first seen"
    assert house.models.classes() == order
    images = [replace(image, boxes=tuple(box for box in image.boxes if box.label in _OLD)) for image in unseen]
    labels_of_class = {number: (name,) for number, name in engine.info.class_names.items()}
    found = find_boxes(engine, images, labels_of_class, max_megapixels=10).images
    truths = [TrueBoxes.of(image.boxes, image.size_wh, _OLD) for image in images]
    return score(match_all(truths, found, _OLD, IOUS[:1]), resample(len(images), 0), 1).map50()
