"""How much memory requests, waiting tasks and kept results take together."""

from __future__ import annotations

import threading
import time

_LOOK_EVERY_S = 0.05


class HeldBytes:
    """Counts the bytes that are held, up to a limit. Safe to share between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How many bytes are held now."""
        return self._held_bytes

    def take(self, count_bytes: int) -> bool:
        """Take room for so many bytes. Returns False, and takes nothing, if there isn't enough."""
        with self._lock:
            if self._held_bytes + count_bytes > self._limit_bytes:
                return False
            self._held_bytes += count_bytes
            return True

    def count(self, change_bytes: int) -> None:
        """Count bytes that are held in any case, such as a result that is delivered soon. Others get less room."""
        with self._lock:
            self._held_bytes += change_bytes

    def take_within(self, count_bytes: int, timeout_s: float) -> bool:
        """The same as `take`, but wait so long for room."""
        ends_at = time.monotonic() + timeout_s
        while not self.take(count_bytes):
            if count_bytes > self._limit_bytes or time.monotonic() >= ends_at:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def give_back(self, count_bytes: int) -> None:
        """Give back room that was taken. Raises ValueError for more than is held."""
        with self._lock:
            if count_bytes > self._held_bytes:
                raise ValueError(f"{count_bytes} bytes are given back, but {self._held_bytes} are held")
            self._held_bytes -= count_bytes


class Share:
    """What one holder has taken of the room; all of it is given back at the end of a `with` block."""

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self.count_bytes = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back(self.count_bytes)

    def take(self, count_bytes: int, timeout_s: float = 0) -> bool:
        """Take more. Returns False if there is no room for it within `timeout_s`."""
        if not self._held.take_within(count_bytes, timeout_s):
            return False
        self.count_bytes += count_bytes
        return True

    def count(self, count_bytes: int) -> None:
        """Take more in any case."""
        self._held.count(count_bytes)
        self.count_bytes += count_bytes

    def give_back(self, count_bytes: int) -> None:
        """Give some of it back."""
        self._held.give_back(count_bytes)
        self.count_bytes -= count_bytes
