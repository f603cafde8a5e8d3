"""Since when a Label Studio is away."""

from __future__ import annotations

import pytest

from tests.fakes.clock import Clock
from yolo_backend.serving import outage as outage_module
from yolo_backend.serving.outage import Outage


def test_it_lasts_from_the_first_failed_contact_to_the_first_that_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(outage_module, "time", clock)
    outage = Outage()
    assert not outage.lasts_longer_than(0)
    told = []
    for _ in range(4):
        told.append(outage.began())
        clock.now_s += 10
    assert told == [True, False, False, False]
    assert (outage.lasts_longer_than(39), outage.lasts_longer_than(40)) == (True, False)
    outage.ended()
    assert not outage.lasts_longer_than(0)
    outage.began()
    clock.now_s += 10
    assert (outage.lasts_longer_than(9), outage.lasts_longer_than(10)) == (True, False)
