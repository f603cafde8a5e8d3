"""A training of segmentation weights, beside a Label Studio with polygons and masks: from its labels to its regions."""

from __future__ import annotations

import base64
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT
from tests.fakes.outlined_label_studio import SIZE_WH, OutlinedLabelStudio, scene_of
from tests.harness.http_server import StartServer
from tests.harness.shapes import CLASS_NAMES, Thing, shapes_weights
from tests.harness.training_house import House
from yolo_backend.labels.outlines import mask_of
from yolo_backend.labels.rle import decode_rle
from yolo_backend.protocol import sent_project
from yolo_backend.serving.request import Predictor
from yolo_backend.training.records import Options, Run
from yolo_backend.training.registry import REPORT

UNKNOWN = ("Stab", "Reif", "Pfeil")
OPTIONS = Options(shapes_weights("segment").name, minutes=0.05, image_size=160)
UNSEEN = range(500, 512)


@pytest.fixture
def studio() -> OutlinedLabelStudio:
    return OutlinedLabelStudio(scenes=14)


@pytest.fixture
def outlined(serve: StartServer, studio: OutlinedLabelStudio, tmp_path: Path) -> House:
    """A project with polygons and masks, and weights that find such."""
    return House(serve, shapes_weights("segment"), tmp_path, studio)


def pixels(region: dict[str, Any]) -> Any:
    """What a region covers, (height, width)."""
    value = region["value"]
    if "rle" in value:
        mask = decode_rle(value["rle"], SIZE_WH)
    else:
        mask = mask_of(np.array(value["points"]) / 100 * SIZE_WH, SIZE_WH)
    image = np.zeros(SIZE_WH[::-1], np.bool_)
    left, top, width, height = mask.window_xywh
    image[top : top + height, left : left + width] = mask.bitmap()
    return image


def is_found(thing: Thing, label: str, regions: list[dict[str, Any]]) -> bool:
    """Returns True if a region with the label has more than half in common with what can be seen of the thing."""
    shown = [pixels(region) for region in regions if region["value"][region["type"]] == [label]]
    return any((each & thing.mask).sum() > 0.5 * (each | thing.mask).sum() for each in shown)


def predict(house: House, numbers: range) -> tuple[float, set[str]]:
    """What share of the things in these scenes is found by what serves the project, and its model_version."""
    settings = house.settings.model_copy(update={"training": "on", "model_image_size": 160})
    pictures = [base64.b64encode(house.studio.picture(number)).decode() for number in numbers]
    tasks: list[Any] = [
        {"id": number, "data": {"image": f"data:image/jpeg;base64,{picture}"}}
        for number, picture in zip(numbers, pictures, strict=True)
    ]
    config, project = house.studio.label_config(), sent_project(PROJECT, CREATED_AT)
    with closing(Predictor(settings)) as predictor:
        predictions = [predictor.predict([task], config, project=project)[0] for task in tasks]
    found = [
        is_found(thing, house.studio.labels[thing.class_id], prediction["result"] if prediction else [])
        for number, prediction in zip(numbers, predictions, strict=True)
        for thing in scene_of(number).things
    ]
    return sum(found) / len(found), {each["model_version"] for each in predictions if each}


def trained(house: House, options: Options) -> Run:
    run = house.train_here(options)
    assert run.state == "ended", run.failure
    assert run.kind == "segment"
    assert run.result
    return run


def test_polygons_and_masks_are_learned_from_and_served(outlined: House) -> None:
    """In a few CPU seconds, beginning with weights that know the labels."""
    share, versions = predict(outlined, UNSEEN)
    assert share > 0.5, "the weights themselves"
    run = trained(outlined, replace(OPTIONS, promote="always"))
    assert run.result
    assert run.result.images.train + run.result.images.val == 14
    assert set(run.result.labels) == set(CLASS_NAMES)
    assert not any("Not trained on" in remark for remark in run.remarks), run.remarks
    assert (outlined.models.folder_of(run.run) / REPORT).exists()
    assert outlined.models.promoted() == run.run
    share, by_trained = predict(outlined, UNSEEN)
    assert by_trained == {run.result.model_version}
    assert by_trained != versions
    assert share > 0.4, "what it found before isn't lost"


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_labels_that_no_weights_know_are_learned_and_a_second_model_is_judged_by_the_first(
    outlined: House, studio: OutlinedLabelStudio
) -> None:
    studio.scenes, studio.labels = 48, UNKNOWN
    assert predict(outlined, UNSEEN[:2]) == (0, set())
    options = replace(OPTIONS, minutes=1)
    first = trained(outlined, options)
    assert first.result
    assert first.result.promoted, first.result.reason
    assert "it finds more than chance does" in first.result.reason
    assert first.result.images.val >= 10
    assert first.result.map50.current is None
    share, versions = predict(outlined, UNSEEN)
    assert versions == {first.result.model_version}
    assert share > 0.3

    second = trained(outlined, replace(options, seed=1))
    assert second.result
    assert second.result.map50.current == pytest.approx(first.result.map50.candidate, abs=1e-6)
    assert second.result.promoted or "worse than the serving model" in second.result.reason, second.result.reason

    studio.shuffled = True
    poisoned = trained(outlined, replace(options, minutes=0.05))
    assert poisoned.result
    assert not poisoned.result.promoted
    assert "validation images changed; the serving model fell from" in poisoned.result.reason


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_a_first_model_of_labels_that_mean_nothing_is_refused(
    outlined: House, studio: OutlinedLabelStudio, seed: int
) -> None:
    """It learns where things are, and what they are called can't be learned."""
    studio.scenes, studio.labels, studio.shuffled = 60, UNKNOWN, True
    run = trained(outlined, replace(OPTIONS, minutes=0.7, seed=seed))
    assert run.result
    assert not run.result.promoted, run.result.reason
    assert run.verdict == "refuse"
    assert "than chance does" in run.result.reason
    assert outlined.models.promoted() is None
