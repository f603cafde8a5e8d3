"""A Label Studio that is away: since when, and when to try again."""

from __future__ import annotations

import time

from yolo_backend.label_studio.pauses import Pauses

_PAUSE_S = (2.0, 60.0)


class Outage:
    """When one project's Label Studio is away. For any thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._pauses = Pauses(*_PAUSE_S)
        self._paused_until = float("-inf")

    def began(self) -> bool:
        """Record another failed contact. Returns True if it is the first in a while."""
        now = time.monotonic()
        is_news = now > self._paused_until + _PAUSE_S[1]  # not again and again, if other images can be had
        self._since = self._since or now
        if now >= self._paused_until:
            self._paused_until = now + self._pauses.next()
        return is_news

    def ended(self) -> None:
        """Images can be had."""
        self._since = None
        self._pauses.reset()

    @property
    def paused_until(self) -> float:
        """When it is time for another try."""
        return self._paused_until

    def lasts_longer_than(self, seconds: float) -> bool:
        """Returns True if it has been away for so long."""
        since = self._since
        return since is not None and time.monotonic() - since > seconds
