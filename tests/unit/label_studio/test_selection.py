"""Which tasks are selected: what the Data Manager is asked, and what is looked at here."""

from __future__ import annotations

import pytest

from yolo_backend.label_studio.selection import Selection
from yolo_backend.protocol import Task


def task(*predictions: tuple[int, str | None, float | None]) -> Task:
    """A task with these predictions: id, version, score."""
    held = [{"id": number, "model_version": version, "score": score} for number, version, score in predictions]
    return {"id": 1, "predictions": held}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), []),
        (Selection(without_predictions=True), ["total_predictions"]),
        (Selection(without_annotations=True, min_score=0.5), ["total_annotations"]),
        (Selection(without_predictions=True, without_annotations=True), ["total_predictions", "total_annotations"]),
    ],
)
def test_the_data_manager_is_asked_for_what_it_can_tell(selection: Selection, expected: list[str]) -> None:
    assert [item["filter"].removeprefix("filter:tasks:") for item in selection.filters] == expected
    assert all((item["operator"], item["value"]) == ("equal", 0) for item in selection.filters)


NEWEST_LAST = task((1, "a", 0.9), (2, "b", 0.4))
NEWEST_FIRST = task((7, "b", 0.4), (3, "a", 0.9))


@pytest.mark.parametrize(
    ("selection", "shown", "expected"),
    [
        (Selection(), task(), True),
        (Selection(), {"id": 1}, True),
        (Selection(min_score=0), task(), False),
        (Selection(max_score=1), {"id": 1}, False),
        (Selection(min_score=0), task((1, "a", None)), False),
        (Selection(min_score=0.4, max_score=0.4), NEWEST_LAST, True),
        (Selection(max_score=0.4), NEWEST_FIRST, True),
        (Selection(min_score=0.5), NEWEST_LAST, False),
        (Selection(max_score=0.39), NEWEST_LAST, False),
        (Selection(min_score=0.5, model_version="a"), NEWEST_LAST, True),
        (Selection(min_score=0.5, model_version="c"), NEWEST_LAST, False),
        (Selection(min_score=0), task((1, None, 0.0)), True),
    ],
)
def test_the_newest_prediction_has_the_score(selection: Selection, shown: Task, expected: bool) -> None:
    assert selection.passes(shown) is expected


def test_no_prediction_of_a_version_is_none() -> None:
    assert Selection(model_version="c").newest_prediction(NEWEST_LAST) is None
    assert (Selection(model_version="a").newest_prediction(NEWEST_LAST) or {})["id"] == 1
