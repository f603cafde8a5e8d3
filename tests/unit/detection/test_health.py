"""A model's health: what is told after faults in a row, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from yolo_backend.detection import health
from yolo_backend.detection.health import MAX_HANGS, ModelHealth

Event = Callable[[ModelHealth], None]


def good(state: ModelHealth) -> None:
    state.succeeded()


def bad(state: ModelHealth) -> None:
    state.failed("no such kernel")


def hang(state: ModelHealth) -> None:
    state.hung("a.pt hung")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], None),
        ([good], None),
        ([bad, bad], None),
        ([bad, bad, good, bad, bad], None),
        ([bad, bad, bad], "a.pt failed on its last 3 batches (no such kernel)"),
        ([good, bad, bad, bad, bad], "a.pt failed on its last 4 batches (no such kernel)"),
        ([bad, bad, bad, good], None),
        ([hang, hang], None),
        ([hang, bad, hang], "a.pt failed on its last 3 batches (a.pt hung)"),
        ([hang, hang, good, hang], None),
        ([hang, hang, hang], "a.pt hung, 3 times in a row: restart the backend"),
        ([hang, bad, hang, bad, hang], "a.pt hung, 3 times in a row: restart the backend"),
    ],
)
def test_three_faults_in_a_row_make_a_model_down(events: list[Event], expected: str | None) -> None:
    state = ModelHealth("a.pt")
    for event in events:
        event(state)
    reason = state.down_reason()
    assert (reason or "").startswith(expected or "")
    assert (reason is None) == (expected is None)


def test_a_failure_is_forgotten_and_a_model_that_was_given_up_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    failing, hanging = ModelHealth("a.pt"), ModelHealth("b.pt")
    for _ in range(MAX_HANGS):
        bad(failing)
        hang(hanging)
    assert failing.down_reason() is not None
    assert failing.given_up_reason() is None
    assert hanging.given_up_reason() is not None
    monkeypatch.setattr(health, "_TRY_AGAIN_AFTER_S", 0)
    assert failing.down_reason() is None
    assert hanging.down_reason() == hanging.given_up_reason()
