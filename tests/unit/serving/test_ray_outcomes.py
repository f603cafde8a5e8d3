"""What a node of a cluster found out comes back as it was; the cluster itself is in tests/integration."""

from __future__ import annotations

import pytest

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.serving.ray_workers import _read_outcome, _write_outcome
from yolo_backend.serving.request import Outcome


@pytest.mark.parametrize(
    "outcome",
    [
        {"result": [], "score": 0.5, "model_version": "yolo26n-3f9a1c2e"},
        Failure("7", 1, FailureKind.NOT_FOUND, "no such image", "http://host/a.jpg", 1.5, is_passing=True),
        Failure("7", None, FailureKind.INTERNAL, "the backend's log says more"),
    ],
    ids=["prediction", "failure", "failure of no task"],
)
def test_an_outcome_comes_back_from_a_node_as_it_was(outcome: Outcome) -> None:
    back = _read_outcome(_write_outcome(outcome))

    assert back == outcome
    if isinstance(back, Failure):
        assert back.kind.advice
