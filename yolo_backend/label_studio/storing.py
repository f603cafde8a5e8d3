"""Predictions into Label Studio, which is asked first what it holds: nothing is stored twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from yolo_backend.label_studio.errors import (
    StudioError,
    StudioRefusedError,
    StudioRejectedError,
    StudioUnreachedError,
    explain,
)
from yolo_backend.label_studio.pauses import Pauses
from yolo_backend.label_studio.studio import Studio

# How long Label Studio may go on storing what it was given, after nobody waits for it any more.
_SURELY_STORED_S = 60.0
_SURELY_STORED_EACH_S = 0.05
_ASK_AFTER_S = (1.0, 15.0)
# Where this is set for Label Studio, an import counts anew the tasks that it is about, and not all of the project.
QUICK_IMPORTS = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"


class UnknownOutcomeError(StudioError):
    """Label Studio may have stored what it was sent for the tasks `task_ids`, or may be storing it still."""

    def __init__(self, message: str, task_ids: Collection[int]) -> None:
        super().__init__(message)
        self.task_ids = frozenset(task_ids)


@dataclass(frozen=True)
class Stored:
    """What became of predictions, by their tasks' ids: held before, created now, or not taken."""

    held: frozenset[int] = frozenset()
    created: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()


def surely_stored_after_s(count: int) -> float:
    """After how many seconds Label Studio holds what it was given of `count` predictions, or never will."""
    return _SURELY_STORED_S + _SURELY_STORED_EACH_S * count


class UnknownImport:
    """Predictions that were sent in an import of unknown outcome, until it is known of each whether it is stored.

    `task_ids` are those that aren't settled yet. Ask Label Studio which of them it holds when `pause_s` is over, and
    tell it to `settle`: what is held is settled at once; what isn't, when Label Studio has had time enough. Times are
    of `time.monotonic`, and `ended_at` is when the import ended without an answer. For one thread.
    """

    def __init__(self, task_ids: Collection[int], ended_at: float) -> None:
        self.task_ids = frozenset(task_ids)
        self._over_at = ended_at + surely_stored_after_s(len(self.task_ids))
        self._pauses = Pauses(*_ASK_AFTER_S)
        self._ask_at = ended_at + self._pauses.next()

    def pause_s(self, now: float) -> float:
        """How long to wait before Label Studio is asked, 0 where it is time."""
        return max(0.0, self._ask_at - now)

    def left_s(self, now: float) -> float:
        """After how many seconds at most all is settled, where Label Studio answers."""
        return max(0.0, self._over_at - now)

    def settle(self, held: Collection[int], asked_at: float) -> tuple[frozenset[int], frozenset[int]]:
        """Which of them are stored, and which never will be, now that Label Studio held `held` when it was asked."""
        stored = self.task_ids & frozenset(held)
        lost = self.task_ids - stored if asked_at >= self._over_at else frozenset[int]()
        self.task_ids -= stored | lost
        self._ask_at = max(asked_at, min(asked_at + self._pauses.next(), self._over_at))
        return stored, lost


def store_predictions(
    studio: Studio,
    project: int,
    predictions: Sequence[Mapping[str, Any]],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Stored]:
    """Store predictions of one model_version, each with its `task`, and tell of each part what became of it.

    Where one of them spoils all, they are halved until it stands alone. `is_wanted` is asked before each part is sent.
    Raises StudioError, StudioRefusedError where the token may not do it, StudioUnreachedError where nothing of what is
    left arrived, UnknownOutcomeError and requests.Timeout.
    """
    yield from _Store(studio, project, is_wanted).after_asking(predictions)


@dataclass(frozen=True)
class _Store:
    """Stores predictions of one model_version into a project, part by part."""

    studio: Studio
    project: int
    is_wanted: Callable[[], bool]

    def after_asking(self, predictions: Sequence[Mapping[str, Any]]) -> Iterator[Stored]:
        """Store what Label Studio doesn't hold yet."""
        if not predictions:
            return
        held = self._held(predictions)
        yield Stored(held=held)
        yield from self._store([each for each in predictions if each["task"] not in held])

    def _store(self, missing: Sequence[Mapping[str, Any]]) -> Iterator[Stored]:
        if not missing or not self.is_wanted():
            return
        task_ids = frozenset(prediction["task"] for prediction in missing)
        created = self._send(missing, task_ids)
        try:
            # Label Studio may store some of them, and reject the rest with the same answer as if it had stored none.
            taken = task_ids if created == len(missing) else self._held(missing)
        except (StudioError, requests.Timeout) as error:  # a refusal, too: what was sent may be stored
            raise UnknownOutcomeError(explain(error), task_ids) from None
        if created is not None or len(missing) == 1:
            yield Stored(created=taken, rejected=task_ids - taken)
            return
        yield Stored(created=taken)
        left = [prediction for prediction in missing if prediction["task"] not in taken]
        middle = len(left) // 2
        yield from self._store(left[:middle])  # of which Label Studio has just been asked
        yield from self.after_asking(left[middle:])

    def _send(self, missing: Sequence[Mapping[str, Any]], task_ids: frozenset[int]) -> int | None:
        """How many Label Studio says that it stored, None where it rejects them all for the fault of one."""
        try:
            return self.studio.import_predictions(self.project, missing)
        except StudioRejectedError:  # too much for a proxy, or one task that was deleted meanwhile spoils all
            return None
        except (StudioRefusedError, StudioUnreachedError):
            raise
        except (StudioError, requests.Timeout) as error:
            raise UnknownOutcomeError(explain(error), task_ids) from None

    def _held(self, predictions: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        task_ids = [prediction["task"] for prediction in predictions]
        return frozenset(self.studio.tasks_holding(self.project, predictions[0]["model_version"], task_ids))
