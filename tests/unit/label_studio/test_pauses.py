"""Pauses grow twofold up to a limit, and begin anew."""

from __future__ import annotations

import pytest

from yolo_backend.label_studio.pauses import Pauses


@pytest.mark.parametrize(
    ("first_s", "most_s", "expected"),
    [(1.0, 15.0, [1, 2, 4, 8, 15, 15]), (2.0, 2.0, [2, 2]), (0.5, 1.0, [0.5, 1, 1]), (5.0, 60.0, [5, 10, 20, 40, 60])],
)
def test_they_grow_up_to_a_limit_and_begin_anew(first_s: float, most_s: float, expected: list[float]) -> None:
    pauses = Pauses(first_s, most_s)
    assert [pauses.next() for _ in expected] == expected
    pauses.reset()
    assert [pauses.next() for _ in expected] == expected
