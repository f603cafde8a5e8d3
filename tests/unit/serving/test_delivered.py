"""What was delivered minutes ago: how long it is trusted, and when it is forgotten."""

from __future__ import annotations

import pytest

from yolo_backend.serving.delivered import RecentDeliveries


@pytest.fixture
def deliveries() -> RecentDeliveries:
    """Ten predictions were stored together 1000 s after the start; one of them is that of task 1."""
    made = RecentDeliveries()
    made.add(1, 11, now=1000.0, together=10)
    return made


def test_it_is_trusted_for_longer_the_more_came_together(deliveries: RecentDeliveries) -> None:
    deliveries.add(2, 22, now=1000.0, together=500)
    assert [deliveries.is_trusted(1, 11, now) for now in (1005.1, 1005.3)] == [True, False]
    assert [deliveries.is_trusted(2, 22, now) for now in (1014.9, 1015.1)] == [True, False]
    assert deliveries.has(1, 11)


def test_other_data_of_a_task_is_another_task(deliveries: RecentDeliveries) -> None:
    assert not deliveries.has(1, 12)
    assert not deliveries.is_trusted(1, 12, 1000.0)
    assert not deliveries.has(2, 11)


def test_who_asks_label_studio_learns_whether_it_is_there_still(deliveries: RecentDeliveries) -> None:
    deliveries.confirm(1, now=1100.0, together=1)
    deliveries.confirm(2, now=1100.0, together=1)
    assert [deliveries.is_trusted(1, 11, now) for now in (1105.0, 1105.1)] == [True, False]
    assert not deliveries.has(2, 0)

    deliveries.refute(1, asked_at=1099.0)  # it was delivered after that question
    deliveries.refute(2, asked_at=1200.0)
    assert deliveries.has(1, 11)
    deliveries.refute(1, asked_at=1101.0)
    assert not deliveries


def test_it_is_forgotten_after_five_minutes_since_it_was_last_seen(deliveries: RecentDeliveries) -> None:
    deliveries.add(2, 22, now=1001.0, together=1)
    deliveries.confirm(1, now=1100.0, together=1)
    deliveries.forget_old(1301.0)
    assert deliveries.has(2, 22)
    deliveries.forget_old(1301.1)
    assert not deliveries.has(2, 22)
    assert deliveries.has(1, 11)
    deliveries.forget_old(1400.1)
    assert not deliveries
