"""How long the demo waits for what is predicted after the click."""

from __future__ import annotations

from typing import Any

from yolo_backend.demo.checking import wait_for_predictions

PREDICTION: dict[str, Any] = {"result": []}


def test_what_is_stored_after_the_click_is_waited_for() -> None:
    """On a busy machine, the click ends before its predictions are there."""
    answers: list[dict[str, Any]] = [
        {"a.jpg": None, "b.jpg": None},
        {"a.jpg": PREDICTION, "b.jpg": None},
        {"a.jpg": PREDICTION, "b.jpg": PREDICTION},
    ]

    stored = wait_for_predictions(lambda: answers.pop(0), ["a.jpg", "b.jpg"], timeout_s=60, pause_s=0)

    assert stored == {"a.jpg": PREDICTION, "b.jpg": PREDICTION}
    assert answers == []


def test_what_never_comes_is_waited_for_until_the_time_is_up() -> None:
    assert wait_for_predictions(lambda: {"a.jpg": None}, ["a.jpg"], timeout_s=0, pause_s=0) == {"a.jpg": None}
