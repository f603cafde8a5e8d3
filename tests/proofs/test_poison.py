"""Poison: real models that were trained on spoiled labels don't serve, and spoiled labels aren't trained on.

One model is trained for each kind of poison; each is judged on twenty draws of the least images that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.harness.findings import box, labelled, spoiled_labels, spoiled_places
from yolo_backend.demo.scenes import CLASS_NAMES, draw_scene, save_scene
from yolo_backend.detection.engine import Engine
from yolo_backend.settings import load_settings
from yolo_backend.training.corrections import check_labels
from yolo_backend.training.dataset import write_dataset
from yolo_backend.training.finding import find_boxes
from yolo_backend.training.fitting import FitSpec, fit
from yolo_backend.training.found import Findings
from yolo_backend.training.gate import MIN_IMAGES, Judgement, judge
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.networks import read_base
from yolo_backend.training.thresholds import ThresholdRule

pytestmark = [pytest.mark.training_proof, pytest.mark.timeout(3600)]

Images = list[LabelledImage]
Spoil = Callable[[Sequence[LabelledImage], int], Images]

TRAIN, VALIDATE = 30, 40
SEEDS = range(20)
CPU_S = 40.0
IMAGE_SIZE = 160
SPOILED: dict[str, Spoil] = {
    "all labels shuffled": spoiled_labels,
    "all places random": spoiled_places,
    "a third of the labels shuffled": lambda images, seed: spoiled_labels(images, seed, 1 / 3),
    "a third of the places random": lambda images, seed: spoiled_places(images, seed, 1 / 3),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Scenes as somebody labelled them, rightly."""
    folder = tmp_path_factory.mktemp("scenes")
    found = []
    for number in range(TRAIN + VALIDATE):
        scene, file = draw_scene(700_000 + number), folder / f"{number}.jpg"
        save_scene(scene, file)
        names = [CLASS_NAMES[class_id] for class_id in scene.class_ids]
        drawn = zip(names, scene.boxes_xyxy.tolist(), strict=True)
        found.append(labelled(number, drawn, size_wh=scene.size_wh, file=file))
    return found


Trained = Callable[[Images], Findings]


@pytest.fixture(scope="module")
def trained(bccd_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What a model that was trained on the first of these images finds in the others, as it would serve."""

    def train(images: Images) -> Findings:
        folder = tmp_path_factory.mktemp("trained")
        train, validate = images[:TRAIN], images[TRAIN:]
        data = write_dataset(folder / "data", train, validate, CLASS_NAMES, kind="detect")
        weights = folder / "weights.pt"
        fit(FitSpec(data, read_base(bccd_weights), {}, weights, CPU_S, image_size=IMAGE_SIZE))
        settings = load_settings(model_dir=folder / "models", device="cpu", engine="torch", model_image_size=IMAGE_SIZE)
        names = {number: (name,) for number, name in enumerate(CLASS_NAMES)}
        return find_boxes(Engine.as_set(weights, settings), validate, names, max_megapixels=10)

    return train


@pytest.fixture(scope="module")
def right(images: Images, trained: Trained) -> Findings:
    return trained(images)


def draws() -> list[list[int]]:
    """So many of the validation images, for each seed."""
    return [np.random.default_rng(seed).permutation(VALIDATE)[:MIN_IMAGES].tolist() for seed in SEEDS]


def verdicts(images: Images, candidate: Findings, current: Findings | None = None) -> list[Judgement]:
    validate = images[TRAIN:]
    return [
        judge(
            [validate[number] for number in chosen],
            CLASS_NAMES,
            candidate.at(chosen),
            current and current.at(chosen),
            is_first=True,
            rule=ThresholdRule(),
            seed=seed,
        )
        for seed, chosen in zip(SEEDS, draws(), strict=True)
    ]


def test_a_right_first_model_is_promoted(images: Images, right: Findings) -> None:
    found = verdicts(images, right)
    assert [each.verdict for each in found].count("promote") >= len(SEEDS) - 1, [each.reason for each in found]


@pytest.mark.parametrize("kind", ["all labels shuffled", "all places random"])
def test_a_first_model_of_poison_is_refused(kind: str, images: Images, right: Findings, trained: Trained) -> None:
    """And beside one that serves, by labels that are right."""
    spoiled = SPOILED[kind](images, 1)
    candidate = trained(spoiled)
    for found in (verdicts(spoiled, candidate), verdicts(images, candidate, right)):
        assert [each.verdict for each in found] == ["refuse"] * len(SEEDS), [each.reason for each in found]


@pytest.mark.parametrize("kind", SPOILED)
def test_spoiled_labels_are_not_trained_on(kind: str, images: Images, right: Findings) -> None:
    for seed, chosen in zip(SEEDS, draws(), strict=True):
        then = [images[TRAIN:][number] for number in chosen]
        now = SPOILED[kind](then, seed)
        boxes_then = {image.digest: image.boxes for image in then}
        reason = check_labels(now, boxes_then, right.at(chosen), CLASS_NAMES)
        assert reason is not None, (kind, seed)
        assert "validation images changed; the serving model fell from " in reason


def test_a_box_that_was_forgotten_and_one_with_a_wrong_label_may_be_corrected(images: Images, right: Findings) -> None:
    for chosen in draws():
        then = [images[TRAIN:][number] for number in chosen]
        first, second, *others = then
        more = box(CLASS_NAMES[0], (1, 1, 40, 40))
        renamed = box(CLASS_NAMES[(CLASS_NAMES.index(second.boxes[0].label) + 1) % 3], second.boxes[0].box_xyxy)
        now = [
            LabelledImage(**{**vars(first), "boxes": (*first.boxes, more)}),
            LabelledImage(**{**vars(second), "boxes": (renamed, *second.boxes[1:])}),
            *others,
        ]
        boxes_then = {image.digest: image.boxes for image in then}
        assert check_labels(now, boxes_then, right.at(chosen), CLASS_NAMES) is None
