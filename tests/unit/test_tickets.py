"""Tickets: the same data is known again, and other data isn't taken for it."""

from __future__ import annotations

from typing import Any

import pytest

from yolo_backend.protocol import from_json
from yolo_backend.tickets import tickets_of


def fingerprint(data: str) -> int:
    """Of a task whose data came as this JSON."""
    (ticket,) = tickets_of([from_json(f'{{"id": 1, "data": {data}}}'.encode())])
    return ticket.fingerprint


@pytest.mark.parametrize(
    ("data", "same"),
    [
        ('{"image": "a.jpg", "n": 1}', '{"n": 1, "image": "a.jpg"}'),
        ('{"image": "a.jpg", "more": {"x": 1, "y": [2]}}', '{"image": "a.jpg", "more": {"y": [2], "x": 1}}'),
        ('{"image": "a.jpg", "n": NaN}', '{"image": "a.jpg", "n": NaN}'),
        ('{"image": "\\ud800"}', '{"image": "\\ud800"}'),
        ('["a.jpg"]', '["a.jpg"]'),
        ("null", "null"),
    ],
)
def test_the_same_data_is_known_again(data: str, same: str) -> None:
    assert fingerprint(data) == fingerprint(same)


@pytest.mark.parametrize(
    ("data", "other"),
    [
        ('{"image": "a.jpg"}', '{"image": "b.jpg"}'),
        ('{"image": "a.jpg"}', '{"photo": "a.jpg"}'),
        ('{"image": "a.jpg"}', '{"image": "a.jpg", "n": null}'),
        ('{"image": "a.jpg", "more": {"x": [1, 2]}}', '{"image": "a.jpg", "more": {"x": [2, 1]}}'),
        ('{"image": "1"}', '{"image": 1}'),
        ('{"image": 1}', '{"image": true}'),
        ('{"image": 1}', '{"image": 1.0}'),
        ('{"images": ["a.jpg"]}', '{"images": "[\\"a.jpg\\"]"}'),
        ('["a.jpg"]', '["b.jpg"]'),
        ("null", "{}"),
    ],
)
def test_other_data_is_not_taken_for_it(data: str, other: str) -> None:
    assert fingerprint(data) != fingerprint(other)


@pytest.mark.parametrize("task", [{}, {"id": 1, "data": None}, {"id": "1", "data": {"image": {1, 2}}}])
def test_any_task_has_a_ticket(task: dict[str, Any]) -> None:
    assert len(tickets_of([task])) == 1
