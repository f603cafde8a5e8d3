"""Which tasks of a project are selected: by what they hold, by their newest score, the newest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from yolo_backend.label_studio.filters import Filter, task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.protocol import Task


@dataclass(frozen=True)
class Selection:
    """All tasks, or fewer. Scores are those of the newest prediction, or of the newest of `model_version`."""

    without_predictions: bool = False
    without_annotations: bool = False
    min_score: float | None = None
    max_score: float | None = None
    model_version: str | None = None
    newest_first: bool = False
    limit: int | None = None

    @property
    def filters(self) -> list[Filter]:
        """The Data Manager's part. Its score is an average over versions, so scores are compared here."""
        columns = {"total_predictions": self.without_predictions, "total_annotations": self.without_annotations}
        return [task_filter(column, "equal", 0, "Number") for column, is_wanted in columns.items() if is_wanted]

    @property
    def is_by_score(self) -> bool:
        """Returns True if scores decide."""
        return self.min_score is not None or self.max_score is not None

    def newest_prediction(self, task: Task) -> Mapping[str, Any] | None:
        """The prediction that counts, of a task that was read with its predictions; None if it has none."""
        predictions = [
            prediction
            for prediction in task.get("predictions") or []
            if self.model_version is None or prediction["model_version"] == self.model_version
        ]
        return max(predictions, key=lambda prediction: int(prediction["id"]), default=None)

    def passes(self, task: Task) -> bool:
        """Returns True if the task's score is in the range, or none is asked for."""
        if not self.is_by_score:
            return True
        prediction = self.newest_prediction(task)
        score = prediction["score"] if prediction else None
        lowest = float("-inf") if self.min_score is None else self.min_score
        highest = float("inf") if self.max_score is None else self.max_score
        return score is not None and lowest <= score <= highest


def selected_tasks(
    project: Project, selection: Selection, fields: Sequence[str], more_filters: Sequence[Filter] = ()
) -> Iterator[Task]:
    """The tasks that are selected and pass `more_filters`, with these fields, a page at a time."""
    needed = [*fields, "predictions"] if selection.is_by_score else fields
    filters = [*selection.filters, *more_filters]
    tasks = project.tasks(filters, fields=needed, newest_first=selection.newest_first)
    return islice(filter(selection.passes, tasks), selection.limit)


def count_selected(project: Project, selection: Selection, more_filters: Sequence[Filter] = ()) -> int:
    """How many tasks these are. If scores decide, all have to be read for that."""
    if selection.is_by_score:
        return sum(1 for _ in selected_tasks(project, selection, ["id"], more_filters))
    count = project.count([*selection.filters, *more_filters])
    return count if selection.limit is None else min(count, selection.limit)
