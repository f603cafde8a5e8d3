"""What becomes of a model: it is told as it is, in the run and in its report."""

from __future__ import annotations

import pytest

from yolo_backend.training.gate import Comparison, Judgement, Verdict
from yolo_backend.training.outcome import decide
from yolo_backend.training.records import Promote


def judgement(verdict: Verdict) -> Judgement:
    return Judgement(verdict, "mAP50 says so", (), {}, Comparison(), Comparison(), ())


@pytest.mark.parametrize(
    ("gate", "promote", "other", "verdict", "begins"),
    [
        ("promote", "auto", None, "promote", "mAP50 says so"),
        ("refuse", "auto", None, "refuse", "mAP50 says so"),
        ("aside", "auto", None, "aside", "mAP50 says so"),
        ("promote", "always", None, "promote", "mAP50 says so"),
        ("refuse", "always", None, "promote", "It is promoted, because of --promote always. The gate says: mAP50"),
        ("aside", "always", "pose", "promote", "It is promoted, because of --promote always. The gate says: mAP50"),
        ("promote", "always", "pose", "promote", "mAP50 says so"),
        ("promote", "never", None, "aside", "It is not promoted, because of --promote never. The gate says: mAP50"),
        ("promote", "never", "pose", "aside", "It is not promoted, because of --promote never. The gate says: mAP50"),
        ("refuse", "never", None, "refuse", "mAP50 says so"),
        ("promote", "auto", "pose", "aside", "It is kept aside, because a pose model serves this project, and one"),
        ("refuse", "auto", "pose", "refuse", "mAP50 says so"),
    ],
)
def test_a_model_serves_by_the_gate_by_a_person_and_beside_no_other_kind(
    gate: Verdict, promote: Promote, other: str | None, verdict: Verdict, begins: str
) -> None:
    decided = decide(judgement(gate), promote, other_kind=other, run="3", project_id=7)
    assert decided.verdict == verdict
    assert decided.reason.startswith(begins)
    assert decided.reason.endswith("mAP50 says so")
    assert (
        other is None or verdict != "aside" or promote != "auto" or "models --project 7 --promote 3`" in decided.reason
    )
