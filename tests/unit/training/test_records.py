"""What is written down of a run comes back as it was; half of it is noticed."""

from __future__ import annotations

import pytest

from yolo_backend.training.records import (
    Comparison,
    ImageCounts,
    LabelScore,
    Options,
    Progress,
    Result,
    Run,
    run_from_json,
    run_to_json,
)

RUN = Run(
    run="3",
    project="7-00c0ffee",
    state="ended",
    began_at=1_700_000_000.5,
    ended_at=1_700_000_900.0,
    progress=Progress("exporting", at=1_700_000_890.0, epoch=40, epochs=40, score=0.5, seconds_left=0),
    options=Options("yolo26n.pt", minutes=30, group_by="patient"),
    result=Result(
        run="3",
        promoted=True,
        reason="it is better",
        model_version="project-7-3f9a1c2e",
        images=ImageCounts(40, 10),
        labels={"newt": LabelScore(12, 0.5, 0.75, 0.25)},
        map50=Comparison(0.25, 0.5, 0.25, (0.125, 0.375)),
    ),
    verdict="promote",
    remarks=("one",),
)


def test_a_run_comes_back_as_it_was() -> None:
    assert run_from_json(run_to_json(RUN)) == RUN
    assert RUN.map50 == 0.5


@pytest.mark.parametrize("length", [0, 1, 40, 300, -2])
def test_half_a_run_is_noticed(length: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        run_from_json(run_to_json(RUN)[:length])


@pytest.mark.parametrize(
    "content", [b"[]", b'{"run": 1}', b'{"run": "1", "project": "7", "state": "odd", "began_at": 1}']
)
def test_what_is_no_run_is_noticed(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        run_from_json(content)


def test_a_run_of_an_earlier_version_was_asked_of_nobody_that_is_known() -> None:
    content = run_to_json(RUN).replace(b',\n    "by_button": false', b"", 1)
    assert b"by_button" not in content
    assert run_from_json(content) == RUN


def test_what_a_later_version_adds_is_passed_over() -> None:
    content = run_to_json(RUN).replace(b'"run": "3"', b'"run": "3", "weather": "fine"', 1)
    assert run_from_json(content) == RUN


@pytest.mark.parametrize(
    ("state", "is_over"),
    [("collecting", False), ("exporting", False), ("ended", True), ("failed", True), ("cancelled", True)],
)
def test_a_run_is_over_when_it_has_ended_well_or_not(state: str, is_over: bool) -> None:
    content = run_to_json(RUN).replace(b'"state": "ended"', f'"state": "{state}"'.encode())
    assert run_from_json(content).is_over is is_over
