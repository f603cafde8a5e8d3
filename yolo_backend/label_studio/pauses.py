"""How long to wait between one try and the next."""

from __future__ import annotations


class Pauses:
    """Pauses in seconds, each twice as long as the one before, up to a limit. For one thread, or under a lock."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next(self) -> float:
        """The pause before the next try."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._most_s)
        return pause_s

    def reset(self) -> None:
        """The try succeeded: begin with the first pause again."""
        self._next_s = self._first_s
