"""Stores predictions in Label Studio. It is asked first which ones it holds, so that nothing is stored twice."""

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

# So much JSON goes into one import: it is in memory three times, and Label Studio reads it in one piece.
MAX_IMPORT_BYTES = 16_000_000
# How long Label Studio may go on storing an import after nobody waits for its answer any more.
_SURELY_STORED_S = 60.0
_SURELY_STORED_EACH_S = 0.05
_ASK_AFTER_S = (1.0, 15.0)
# If this is set for Label Studio, an import recounts only its own tasks, and not all of the project.
QUICK_IMPORTS = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"


class UnknownOutcomeError(StudioError):
    """Label Studio may have stored the predictions of the tasks `task_ids`, or may still be storing them."""

    def __init__(self, message: str, task_ids: Collection[int]) -> None:
        super().__init__(message)
        self.task_ids = frozenset(task_ids)


@dataclass(frozen=True)
class Stored:
    """What became of predictions, by their tasks' ids: held before, created now, or rejected."""

    held: frozenset[int] = frozenset()
    created: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()


def surely_stored_after_s(count: int) -> float:
    """After how many seconds an import of `count` predictions is either stored or lost."""
    return _SURELY_STORED_S + _SURELY_STORED_EACH_S * count


class UnknownImport:
    """Predictions of an import whose outcome is unknown, until we know of each whether it is stored.

    `task_ids` are those that aren't settled yet. When `pause_s` is over, ask Label Studio which of them it holds, and
    give the answer to `settle`. What is held is settled at once. The rest is settled when Label Studio has had enough
    time. Times are of `time.monotonic`, and `ended_at` is when the import ended without an answer. For one thread.
    """

    def __init__(self, task_ids: Collection[int], ended_at: float) -> None:
        self.task_ids = frozenset(task_ids)
        self._over_at = ended_at + surely_stored_after_s(len(self.task_ids))
        self._pauses = Pauses(*_ASK_AFTER_S)
        self._ask_at = ended_at + self._pauses.next()

    def pause_s(self, now: float) -> float:
        """How long to wait before Label Studio is asked; 0 if it is time."""
        return max(0.0, self._ask_at - now)

    def left_s(self, now: float) -> float:
        """After how many seconds at most all are settled, if Label Studio answers."""
        return max(0.0, self._over_at - now)

    def settle(self, held: Collection[int], asked_at: float) -> tuple[frozenset[int], frozenset[int]]:
        """Which of them are stored, and which are lost, if Label Studio held `held` when it was asked."""
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
    """Store predictions of one model_version, each with its `task`. Yields what became of each part.

    If one of them makes Label Studio reject all, they are halved until that one is alone. `is_wanted` is asked before
    each part is sent. Raises StudioError, StudioRefusedError if the token may not do it, StudioUnreachedError if
    nothing of the rest arrived, UnknownOutcomeError and requests.Timeout.
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
            # If Label Studio stores some of them and rejects the rest, its answer is the same as if it had stored none.
            taken = task_ids if created == len(missing) else self._held(missing)
        except (StudioError, requests.Timeout) as error:  # also a refusal, because what was sent may be stored
            raise UnknownOutcomeError(explain(error), task_ids) from None
        if created is not None or len(missing) == 1:
            yield Stored(created=taken, rejected=task_ids - taken)
            return
        yield Stored(created=taken)
        left = [prediction for prediction in missing if prediction["task"] not in taken]
        middle = len(left) // 2
        yield from self._store(left[:middle])  # Label Studio was asked about these just now
        yield from self.after_asking(left[middle:])

    def _send(self, missing: Sequence[Mapping[str, Any]], task_ids: frozenset[int]) -> int | None:
        """How many Label Studio says that it stored; None if it rejects all because of one."""
        try:
            return self.studio.import_predictions(self.project, missing)
        except StudioRejectedError:  # too much for a proxy, or a task was deleted meanwhile
            return None
        except (StudioRefusedError, StudioUnreachedError):
            raise
        except (StudioError, requests.Timeout) as error:
            raise UnknownOutcomeError(explain(error), task_ids) from None

    def _held(self, predictions: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        task_ids = [prediction["task"] for prediction in predictions]
        return frozenset(self.studio.tasks_holding(self.project, predictions[0]["model_version"], task_ids))
