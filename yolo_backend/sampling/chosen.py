"""Brings what was chosen into Label Studio: registers it, or writes to the tasks that are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import store_predictions
from yolo_backend.labels.control import Control
from yolo_backend.registering.finding import FileOrAddress
from yolo_backend.registering.items import Item
from yolo_backend.registering.registration import register
from yolo_backend.sampling.scoring import Scored

UNCERTAINTY_KEY = "uncertainty"  # of a task's data, by which the Data Manager can order
_CHUNK_TASKS = 100


@dataclass(frozen=True)
class Written:
    """A task that has its measure now; or how many predictions of the version were stored, and how many rejected."""

    task_id: int | None = None
    predicted: int = 0
    rejected: int = 0


def write_to_tasks(project: Project, chosen: Sequence[Scored]) -> Iterator[Written]:
    """Write the measure into the data of tasks that are there, and the server's prediction if it is missing.

    Their data are read again, because somebody may have changed them or deleted the task meanwhile. Raises StudioError
    and requests.Timeout, after it has yielded what is done.
    """
    # Of what nothing predicts yet, there is nothing to write.
    there = [item for item in chosen if item.image.task_id is not None and item.is_predicted]
    for start in range(0, len(there), _CHUNK_TASKS):
        of_task = {item.image.task_id: item for item in there[start : start + _CHUNK_TASKS]}
        tasks = list(project.tasks([task_filter("id", "in_list", list(of_task), "List")], fields=["data"]))
        predictions = [{"task": task["id"], **of_task[task["id"]].served} for task in tasks]
        for stored in store_predictions(project.studio, project.id, predictions):
            yield Written(predicted=len(stored.created), rejected=len(stored.rejected))
        for task in tasks:
            project.change_data(task["id"], {**task["data"], UNCERTAINTY_KEY: _shown(of_task[task["id"]])})
            yield Written(task["id"])


def _shown(item: Scored) -> float:
    """The uncertainty as a column of the Data Manager shows it: two decimals can be read."""
    return round(item.uncertainty, 2)


def register_chosen(
    project: Project, chosen: Sequence[Scored], control: Control
) -> Iterator[tuple[FileOrAddress, int]]:
    """Register what isn't there yet, with the server's prediction and the measure. Yields images and their tasks' ids.

    Raises RegisterError, StudioError, requests.Timeout.
    """
    items = [
        Item(item.image.source, {UNCERTAINTY_KEY: _shown(item)}, [item.served])
        if item.is_predicted
        else Item(item.image.source)
        for item in chosen
        if not isinstance(item.image.source, Mapping)
    ]
    for part in register(project, items, control) if items else ():
        yield from zip((item.image for item in part.items), part.task_ids, strict=True)
