"""What was delivered minutes ago, for clicks whose tasks were picked before."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

# Label Studio picks a click's tasks first and sends them seconds later, so what was delivered meanwhile comes again.
_TRUSTED_S, _TRUSTED_EACH_S, _REMEMBERED_S = 5.0, 0.02, 300.0


class _Delivery(NamedTuple):
    fingerprint: int
    trusted_until: float
    at: float


class RecentDeliveries:
    """The predictions that Label Studio was seen to hold, by their tasks' ids, the last ones last.

    A task is the same one if its fingerprint is. Times are of `time.monotonic`. For one thread at a time.
    """

    def __init__(self) -> None:
        self._of_task: OrderedDict[int, _Delivery] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._of_task)

    def add(self, task_id: int, fingerprint: int, now: float, together: int) -> None:
        """Label Studio holds this one now, as one of so many that were stored together."""
        self._of_task[task_id] = _Delivery(fingerprint, now + _TRUSTED_S + _TRUSTED_EACH_S * together, now)
        self._of_task.move_to_end(task_id)

    def confirm(self, task_id: int, now: float, together: int) -> None:
        """Label Studio was asked and holds it; nothing if it isn't one of these."""
        if known := self._of_task.get(task_id):
            self.add(task_id, known.fingerprint, now, together)

    def refute(self, task_id: int, asked_at: float) -> None:
        """Label Studio was asked then and doesn't hold it: somebody deleted it, unless it was delivered later."""
        if (known := self._of_task.get(task_id)) and known.at < asked_at:
            del self._of_task[task_id]

    def has(self, task_id: int, fingerprint: int) -> bool:
        """Returns True if this task's prediction is one of these."""
        known = self._of_task.get(task_id)
        return known is not None and known.fingerprint == fingerprint

    def is_trusted(self, task_id: int, fingerprint: int, now: float) -> bool:
        """Returns True if it is one of these, and so young that Label Studio need not be asked."""
        return self.has(task_id, fingerprint) and now < self._of_task[task_id].trusted_until

    def forget_old(self, now: float) -> None:
        """Forget what was delivered so long ago that no click can have been picked before."""
        while self._of_task and next(iter(self._of_task.values())).at < now - _REMEMBERED_S:
            self._of_task.popitem(last=False)
