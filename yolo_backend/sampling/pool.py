"""The pool to choose from: a project's tasks that nobody has labelled, or images that aren't registered yet."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from yolo_backend.addresses import file_name_in, redact
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.control import Control
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.labels.task_values import find_value
from yolo_backend.protocol import Task
from yolo_backend.registering.finding import FileOrAddress
from yolo_backend.registering.items import Item, by_local_files
from yolo_backend.registering.registration import register

# Label Studio counts those that people skipped apart.
UNLABELLED = tuple(task_filter(f"{which}_annotations", "equal", 0, "Number") for which in ("total", "cancelled"))


@dataclass(frozen=True)
class PoolImage:
    """An image to choose from: a task of the project, or a file or an address that isn't registered yet."""

    name: str
    source: FileOrAddress | Task

    @property
    def shown(self) -> str:
        """What a person calls it: a file by its path, what is at an address by its file's name."""
        return self.name if isinstance(self.source, Path) else file_name_in(self.name) or self.name

    @property
    def task_id(self) -> int | None:
        """The id of a task that is there already."""
        return int(self.source["id"]) if isinstance(self.source, Mapping) else None

    @property
    def sort_key(self) -> tuple[int, str]:
        """A key that depends only on the task or the source."""
        return (self.task_id, "") if self.task_id is not None else (0, str(self.source))

    def to_task(self, control: Control) -> Task:
        """The task to predict. If it isn't registered yet, a new one for this control, with a file's content in it.

        Raises OSError.
        """
        if isinstance(self.source, Mapping):
            return self.source
        value = _inline(self.source) if isinstance(self.source, Path) else self.source
        return {"data": control.data_of(value)}

    def plan_for(self, plan: ProjectPlan) -> ProjectPlan:
        """The plan with the labels that the image's task brings, if they come with the tasks."""
        return plan.for_task(self.source.get("data"))[0] if isinstance(self.source, Mapping) else plan


@dataclass(frozen=True)
class Unscored:
    """An image of the pool that can't be chosen, because it couldn't be predicted."""

    image: PoolImage
    kind: FailureKind
    reason: str

    @classmethod
    def unreadable(cls, image: PoolImage, error: OSError) -> Unscored:
        """An image whose file can't be read."""
        return cls(image, FailureKind.UNREADABLE, f"the file can't be read: {error.strerror}")

    def __str__(self) -> str:
        return f"{self.image.name}: {self.reason}"


@dataclass(frozen=True)
class Pool:
    """The images to choose from, read as they are needed. `control` is for those that aren't registered."""

    images: Iterable[PoolImage]
    size: int
    control: Control
    is_new: bool


def new_images(
    project: Project, images: Iterable[FileOrAddress], control: Control, document_root: Path | None = None
) -> Pool:
    """Those of these images of which the project has no task. With a document root, files get Local Files addresses.

    Raises RegisterError, StudioError, requests.Timeout.
    """
    items = [Item(image) for image in images]
    if document_root is not None:
        items = by_local_files(items, document_root)
    parts = register(project, items, control, dry_run=True)
    missing = [item.image for part in parts for item in part.items]
    found = [PoolImage(str(image) if isinstance(image, Path) else redact(image), image) for image in missing]
    return Pool(found, len(found), control, is_new=True)


def unlabelled_tasks(project: Project) -> Pool:
    """The tasks that nobody has labelled or skipped. Raises StudioError, requests.Timeout, also while they are read."""
    controls = parse_labeling_config(project.label_config).controls
    values = list(dict.fromkeys(control.value for control in controls))
    # Which control it is doesn't matter, because tasks have their images already.
    return Pool(_tasks(project, values), project.count(UNLABELLED), controls[0], is_new=False)


def _tasks(project: Project, values: Iterable[str]) -> Iterator[PoolImage]:
    for task in project.tasks(UNLABELLED, fields=["data"]):
        addresses = (find_value(task["data"], value) for value in values)
        first = next((address for address in addresses if address), None)
        yield PoolImage(redact(first[0] if isinstance(first, list) else first), task)


def _inline(file: Path) -> str:
    return "data:;base64," + base64.b64encode(file.read_bytes()).decode()
