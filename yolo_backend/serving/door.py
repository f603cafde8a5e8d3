"""The way into a project of Label Studio: by an import, or by answers of several tasks, never both at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_FEW = 20
_LOOK_FOR_CLIENT_S = 0.5
_STORED_PER_S = 10  # of an answer's predictions: 12 to 21 were seen
_STORED_WITHIN_S = 40.0  # its uwsgi kills a request that takes 120


class Door:
    """One for each project, whatever the version. For any thread.

    Label Studio locks an answer's tasks one by one in a transaction, and an import updates all tasks of the project:
    on PostgreSQL they deadlock, and one of the two is lost.
    """

    def __init__(self) -> None:
        self._is_importing = False
        self._answers = 0
        self._waiting = 0
        self._took_s = 0.0
        self._rests_until = float("-inf")
        self._changed = threading.Condition()

    def enter_to_import(self, *, at_once: bool = False) -> bool:
        """Begin an import; call `import_over` when its outcome is known. Returns False if it isn't the time for one.

        It isn't while an answer is being stored, and not soon after the last import unless `at_once`, because Label
        Studio recounts the project after each. The more predictions the project holds, the longer that takes.
        """
        now = time.monotonic()
        with self._changed:
            if self._is_importing or self._answers or self._waiting or (now < self._rests_until and not at_once):
                return False
            self._is_importing = True
            return True

    def import_over(self) -> None:
        """The outcome of an import is known."""
        with self._changed:
            self._is_importing = False
            self._changed.notify_all()

    def rest(self, took_s: float) -> None:
        """An import took so long. Begin no other one for the same time."""
        with self._changed:
            self._took_s = took_s
            self._rests_until = time.monotonic() + took_s

    def enter_to_answer(self, ends_at: float, is_abandoned: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the import under way, then begin an answer of several tasks. Returns False if that takes too long.

        No other import begins meanwhile. Call `answer_over` when Label Studio has stored the answer.
        """
        with self._changed:
            self._waiting += 1
            try:
                while self._is_importing:
                    left_s = ends_at - time.monotonic()
                    if left_s <= 0 or is_abandoned():
                        return False
                    self._changed.wait(min(_LOOK_FOR_CLIENT_S, left_s))
                self._answers += not (is_gone := is_abandoned())
                return not is_gone
            finally:
                self._waiting -= 1

    def answer_over(self) -> None:
        """Label Studio has stored an answer, or never will."""
        with self._changed:
            self._answers -= 1

    def is_answer_faster(self, count: int) -> bool:
        """Returns True if an answer stores so many predictions sooner than an import."""
        with self._changed:
            return count <= min(max(_FEW, _STORED_PER_S * self._took_s), self.most_answered)

    @property
    def most_answered(self) -> int:
        """How many predictions an answer may bring, so that Label Studio stores it in time."""
        return int(_STORED_WITHIN_S * _STORED_PER_S)
