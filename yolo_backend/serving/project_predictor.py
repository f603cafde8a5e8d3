"""Predicts a project's tasks by one plan, for the commands. Nothing is delivered, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.protocol import Task
from yolo_backend.serving.request import Outcome
from yolo_backend.serving.task import TaskImage

TaskOutcome = tuple[Task, Outcome]
OutcomesOf = Callable[[Iterable[Task]], Iterator[TaskOutcome]]
ImagesOf = Callable[[Task], Sequence[TaskImage]]


class Stream(Protocol):
    """`Predictor.stream`, or its substitute on other machines. It takes tasks only as it needs them."""

    def __call__(self, tasks: Iterable[Task], plan: ProjectPlan, project: str) -> Iterator[TaskOutcome]:
        """Each task with its prediction, or with the reason why there is none, in any order."""
        ...


@dataclass(frozen=True)
class ProjectPredictor:
    """What predicts a project's tasks: `project` is its id, `stream` and `load_images` do the work."""

    plan: ProjectPlan
    project: str
    stream: Stream
    load_images: Callable[[Task, ProjectPlan, str], Sequence[TaskImage]]

    def outcomes_of(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        """Each task with its outcome, as they are done."""
        return self.stream(tasks, self.plan, self.project)

    def images_of(self, task: Task) -> Sequence[TaskImage]:
        """The task's images as the labeling page shows them. Raises ImageError, StudioError, requests.Timeout."""
        return self.load_images(task, self.plan, self.project)
