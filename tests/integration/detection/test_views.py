"""A view of one's own: an entry in the table, and images are shown in it wherever weights are served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes.halves import Halves, boxes_in_halves, serve_halves
from tests.harness.pictures import encode
from yolo_backend.detection.engine import Engine
from yolo_backend.protocol import Task
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

WAIT_S = 60
CELLS = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/></RectangleLabels></View>"""


@pytest.fixture
def make_predictor(
    bccd_environment: dict[str, str], clean_environment: pytest.MonkeyPatch
) -> Iterator[Callable[..., Predictor]]:
    """A backend of the blood cells' weights."""
    made: list[Predictor] = []

    def make(**more: Any) -> Predictor:
        settings = load_settings(**{name.lower(): value for name, value in bccd_environment.items()}, **more)
        made.append(Predictor(settings))
        made[-1].catalog.wait_for_info(settings.model_name, WAIT_S)
        return made[-1]

    yield make
    for predictor in made:
        predictor.close()


@pytest.fixture
def photo(bccd_images: list[NDArray[np.uint8]], tmp_path: Path) -> Task:
    """A task of a photograph, and where it lies."""
    (tmp_path / "cells.png").write_bytes(encode(bccd_images[0]))
    return {"id": 1, "data": {"image": "/data/local-files/?d=cells.png"}}


def boxes(prediction: Any) -> list[tuple[str, list[float]]]:
    """Each region's label, and its box and score: in percent."""
    return [
        (
            region["value"]["rectanglelabels"][0],
            [*(region["value"][side] for side in ("x", "y", "width", "height")), 100 * region["score"]],
        )
        for region in prediction["result"]
    ]


def test_a_view_of_ones_own_is_served(
    make_predictor: Callable[..., Predictor],
    bccd_weights: Path,
    bccd_images: list[NDArray[np.uint8]],
    photo: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = make_predictor(local_files_document_root=tmp_path, engine="torch")
    assert whole.plan(CELLS).model_version == "bccd-d0c466ba"
    in_whole = boxes(whole.predict([photo], CELLS, deadline_s=WAIT_S)[0])

    serve_halves(monkeypatch)
    halves = make_predictor(local_files_document_root=tmp_path, engine="torch")
    version = halves.plan(CELLS).model_version
    assert version != "bccd-d0c466ba"
    (prediction,) = halves.predict([photo], CELLS, deadline_s=WAIT_S)
    bulk = halves.predict([{**photo, "id": 2}, {**photo, "id": 3}], CELLS, deadline_s=WAIT_S)
    streamed = [outcome for _, outcome in halves.stream([photo], halves.plan(CELLS), "1")]

    expected = boxes_in_halves(Engine(bccd_weights, device="cpu"), bccd_images[0])
    assert {box[0] + box[2] / 2 > 50 for _, box in expected} == {True, False}  # some in each half
    assert len(boxes(prediction)) == len(expected) != len(in_whole)
    for each in (prediction, *bulk, *streamed):
        assert each["model_version"] == version
        assert [label for label, _ in boxes(each)] == [label for label, _ in expected]
        np.testing.assert_allclose([box for _, box in boxes(each)], [box for _, box in expected], atol=0.02)


def test_what_is_found_in_the_parts_is_remembered_as_one(
    make_predictor: Callable[..., Predictor], photo: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_halves(monkeypatch)
    predictor = make_predictor(local_files_document_root=tmp_path, engine="torch")
    (first,) = predictor.predict([photo], CELLS, deadline_s=WAIT_S)
    monkeypatch.setattr(predictor.catalog.pool, "detect_all", None)
    (again,) = predictor.predict([{**photo, "id": 2}], CELLS, deadline_s=WAIT_S)
    assert boxes(again) == boxes(first)
    assert boxes(first)


def test_a_view_says_how_small_an_image_may_be_decoded(
    make_predictor: Callable[..., Predictor], photo: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half as small as the whole may be, for each half is shown as large as the whole would be."""
    serve_halves(monkeypatch)
    predictor = make_predictor(local_files_document_root=tmp_path, decode="fast", engine="torch")
    weights = [served.weights for served in predictor.plan(CELLS).controls]
    assert predictor._tasks._images._enough_px(weights) == 4 * 320
    monkeypatch.setattr(Halves, "enough_px", lambda *_: None)
    assert predictor._tasks._images._enough_px(weights) is None
