"""The alarm that hangs up on an image whose time is over."""

from __future__ import annotations

import threading
import time

from yolo_backend.images.line import Alarm


def test_an_alarm_that_rings_has_rung_before_its_connection_is_given_back() -> None:
    """Else it would hang up on the next image's."""
    told: list[str] = []
    begun = threading.Event()

    class SlowAlarm(Alarm):
        def ring(self) -> None:
            begun.set()
            time.sleep(0.2)
            told.append("rung")

    with SlowAlarm(0.01):
        assert begun.wait(10)
    told.append("given back")
    assert told == ["rung", "given back"]
