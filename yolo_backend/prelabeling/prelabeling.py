"""A whole project predicted: chunk by chunk into Label Studio, each prediction once, whatever breaks in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.label_studio.errors import StudioUnreachedError
from yolo_backend.label_studio.filters import lacks
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.selection import Selection, count_selected, selected_tasks
from yolo_backend.label_studio.storing import Stored, UnknownImport, UnknownOutcomeError, store_predictions
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.parallel import ReadAhead
from yolo_backend.prelabeling.model_versions import delete_older, delete_repeated
from yolo_backend.protocol import Task
from yolo_backend.serving.project_predictor import OutcomesOf, TaskOutcome

_CHUNK_TASKS = 200
_CHUNK_WAIT_S = 10.0
_TRIES = 5


@dataclass
class Report:
    """How far a project is predicted. `already` counts the tasks that held a prediction of this version before."""

    model_version: str
    total: int = 0
    done: int = 0
    predicted: int = 0
    stored: int = 0
    already: int = 0
    deleted: int = 0
    failures: list[Failure] = field(default_factory=list)


class Prelabeling:
    """Predicts what of a project isn't predicted yet, stores it, and keeps account of it in `report`.

    `version_of` says which version a labeling config has now; `advanced` is called when a task is done, in any thread;
    `remark` gets what a person should know meanwhile. When `stop` is set, what is ready is stored, and no more.
    """

    def __init__(
        self,
        project: Project,
        model_version: str,
        version_of: Callable[[str], str],
        *,
        stop: threading.Event,
        advanced: Callable[[], None],
        remark: Callable[[str], None],
    ) -> None:
        self.report = Report(model_version)
        self._project = project
        self._version_of = version_of
        self._stop = stop
        self._advanced = advanced
        self._remark = remark

    def run(self, selection: Selection, outcomes_of: OutcomesOf, *, replaces_older: bool = False) -> None:
        """Predict what is selected and isn't predicted yet; what failed since Label Studio was away, again.

        Each of those tasks holds one prediction of this version then. With `replaces_older` none of an older one, where
        it holds one of this. Raises LabelingConfigError where the labels changed meanwhile, StudioError,
        requests.Timeout, and what `outcomes_of` raises.
        """
        missing = [lacks(self.report.model_version)]
        self.report.total = count_selected(self._project, selection, missing)
        everything = replace(selection, limit=None)
        self.report.already = count_selected(self._project, everything) - count_selected(
            self._project, everything, missing
        )
        passing = self.store(outcomes_of(selected_tasks(self._project, selection, ["id", "data"], missing)))
        for _ in range(_TRIES):
            if not passing or self._stop.is_set():
                break
            self._project.count()  # which waits until Label Studio is back
            passing = self.store(outcomes_of([task for task, _ in passing]))
        self.report.failures.extend(failure for _, failure in passing)
        if not self._stop.is_set():
            delete_repeated(self._project, self.report.model_version)
            if replaces_older:
                self.report.deleted = delete_older(self._project, self.report.model_version)

    def store(self, outcomes: Iterator[TaskOutcome]) -> list[tuple[Task, Failure]]:
        """Store these predictions, in chunks; the tasks that failed since Label Studio was away. Raises as `run`."""
        passing: list[tuple[Task, Failure]] = []
        with ReadAhead(self._counted(outcomes), _CHUNK_TASKS) as ahead:
            for chunk in ahead.batches(_CHUNK_WAIT_S, self._stop):
                predictions = []
                for task, outcome in chunk:
                    if not isinstance(outcome, Failure):
                        predictions.append({"task": task["id"], **outcome})
                    elif outcome.is_passing:
                        passing.append((task, outcome))
                self._store_chunk(predictions)
        return passing

    def _counted(self, outcomes: Iterator[TaskOutcome]) -> Iterator[TaskOutcome]:
        for task, outcome in outcomes:
            if not isinstance(outcome, Failure):
                self.report.predicted += 1
            elif not outcome.is_passing:
                self.report.failures.append(outcome)
            if not (isinstance(outcome, Failure) and outcome.is_passing):
                self.report.done += 1
                self._advanced()
            yield task, outcome

    def _store_chunk(self, predictions: Sequence[dict[str, Any]]) -> None:
        left = {prediction["task"]: prediction for prediction in predictions}
        for tries_left in reversed(range(_TRIES)):
            try:
                for part in store_predictions(
                    self._project.studio, self._project.id, list(left.values()), self._has_same_labels
                ):
                    self._account(part)
                    for task_id in part.held | part.created | part.rejected:
                        del left[task_id]
                return
            except StudioUnreachedError:
                if not tries_left or self._stop.is_set():
                    raise
                # Nothing of them was stored, and the next question waits until Label Studio is back.
            except UnknownOutcomeError as error:
                if not tries_left or self._stop.is_set():
                    raise
                unknown = UnknownImport(error.task_ids, time.monotonic())
                left_s = unknown.left_s(time.monotonic())
                self._remark(f"{error}. Label Studio is asked what it has stored, for {left_s:.0f} s at most")
                for task_id in self._settle(unknown):
                    self.report.stored += 1
                    del left[task_id]
                if unknown.task_ids:  # stopped: Label Studio may be storing them still, so they aren't sent again
                    raise

    def _settle(self, unknown: UnknownImport) -> Iterator[int]:
        """The tasks whose predictions that import has stored, as it becomes known; all are, unless `stop` is set."""
        is_stopped = False
        while unknown.task_ids and not is_stopped:
            is_stopped = self._stop.wait(unknown.pause_s(time.monotonic()))
            asked_at = time.monotonic()
            held = self._project.studio.tasks_holding(
                self._project.id, self.report.model_version, sorted(unknown.task_ids)
            )
            stored, _ = unknown.settle(held, asked_at)
            yield from stored

    def _account(self, part: Stored) -> None:
        self.report.stored += len(part.created)
        self.report.already += len(part.held)
        reason = "Label Studio doesn't take its prediction: was the task deleted meanwhile?"
        self.report.failures.extend(
            Failure(str(self._project.id), task_id, FailureKind.REJECTED, reason) for task_id in sorted(part.rejected)
        )

    def _has_same_labels(self) -> bool:
        label_config = self._project.studio.label_config(self._project.id)
        if label_config != self._project.label_config and self._version_of(label_config) != self.report.model_version:
            raise LabelingConfigError("The project's labels changed meanwhile: run it again, with the new ones")
        return True
