"""A project of Label Studio: its tasks, listed and registered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from yolo_backend.label_studio.errors import StudioError, StudioMissingError
from yolo_backend.label_studio.filters import Filter, task_filter
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.labeling_config import first_data_key
from yolo_backend.messages import shortened
from yolo_backend.protocol import Task, sent_project, task_data_of

_PAGE_TASKS = 500
_PAGE_TASKS_WITH_REGIONS = 100  # hundreds of them each, maybe
_WITH_REGIONS = frozenset({"predictions", "annotations"})  # which come where all fields are asked for
_READ_TIMEOUT_S = 120.0
_IMPORT_TIMEOUT_S = 300.0
# Label Studio's own limits for one request (DATA_UPLOAD_MAX_NUMBER_FILES, DATA_UPLOAD_MAX_MEMORY_SIZE).
MAX_UPLOAD_FILES = 100
MAX_UPLOAD_BYTES = 200_000_000
_SHOWN_PROJECTS = 20
_UNNAMED = "$undefined$"


@dataclass(frozen=True)
class Upload:
    """An uploaded file: its id, and its address as a task's data say it."""

    id: int
    address: str


@dataclass(frozen=True)
class HeldVersion:
    """A `model_version`, how many predictions of it the project's tasks hold, and when the newest was stored.

    That is in ISO 8601.
    """

    model_version: str
    predictions: int
    newest_at: str


@dataclass(frozen=True)
class Project:
    """A project as it was when it was opened. `created_at` is as Label Studio's API says it, in ISO 8601."""

    studio: Studio
    id: int
    title: str
    label_config: str
    created_at: str | None = None

    @property
    def url(self) -> str:
        """The page of the project."""
        return f"{self.studio.url}/projects/{self.id}/data"

    @property
    def sent_as(self) -> str:
        """What Label Studio sends to a backend as `project`."""
        return sent_project(self.id, self.created_at) if self.created_at else str(self.id)

    def count(self, filters: Sequence[Filter] = ()) -> int:
        """How many tasks pass these filters."""
        query = {**self._query(filters), "page_size": "1", "include": "id"}
        return int(self.studio.call("GET", "/api/tasks/", "total", _READ_TIMEOUT_S, query=query))

    def tasks(
        self, filters: Sequence[Filter] = (), *, fields: Sequence[str] = (), newest_first: bool = False
    ) -> Iterator[Task]:
        """All tasks that pass these filters, in the order of their ids, a page at a time.

        A task has all its fields, predictions and annotations too, or only those named. If tasks are registered or
        deleted meanwhile, no other task is left out, because a page begins after the last task of the one before.
        """
        last: int | None = None
        has_regions = not fields or not _WITH_REGIONS.isdisjoint(fields)
        page_tasks = _PAGE_TASKS_WITH_REGIONS if has_regions else _PAGE_TASKS
        narrowed = {"fields": "all"} if has_regions else {}
        if fields:
            narrowed["include"] = ",".join({"id", *fields})
        while True:
            after = [] if last is None else [task_filter("id", "less" if newest_first else "greater", last, "Number")]
            query = {
                **self._query([*filters, *after], order="-tasks:id" if newest_first else "tasks:id"),
                **narrowed,
                "page_size": str(page_tasks),
            }
            page = self.studio.call("GET", "/api/tasks/", "tasks", _READ_TIMEOUT_S, query=query)
            yield from (self._with_named_data(task) for task in page)
            if len(page) < page_tasks:
                return
            last = int(page[-1]["id"])

    def import_tasks(self, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Register tasks, with the predictions or annotations that they hold; their ids, in order.

        All of them or none. Raises StudioRejectedError with Label Studio's reason, StudioError, requests.Timeout.
        """
        path = f"/api/projects/{self.id}/import"
        query = {"return_task_ids": "true"}
        ids = self.studio.call("POST", path, "task_ids", _IMPORT_TIMEOUT_S, query=query, body=list(tasks))
        return [int(task_id) for task_id in ids]

    def upload(self, files: Sequence[tuple[str, bytes]]) -> list[Upload]:
        """Upload files, each a name and its content, in order.

        At most MAX_UPLOAD_FILES of MAX_UPLOAD_BYTES together. No tasks are made of them. Raises as `import_tasks`.
        """
        path = f"/api/projects/{self.id}/import"
        query = {"commit_to_project": "false"}
        # Of several files under one field name Label Studio takes the last alone.
        parts = [(f"file{number}", file) for number, file in enumerate(files)]
        ids = self.studio.call("POST", path, "file_upload_ids", _IMPORT_TIMEOUT_S, query=query, files=parts)
        query = {"ids": json.dumps(ids)}
        uploads = self.studio.call("GET", f"/api/projects/{self.id}/file-uploads", None, _READ_TIMEOUT_S, query=query)
        names = {upload["id"]: upload["file"] for upload in uploads}
        if len(ids) != len(files) or any(upload_id not in names for upload_id in ids):
            raise StudioError(f"{self.studio.url} took {len(names)} of {len(files)} files that were uploaded")
        # Label Studio writes them so itself: below its path prefix, and quoted.
        prefix = urlsplit(self.studio.url).path
        return [Upload(upload_id, quote(f"{prefix}/data/{names[upload_id]}")) for upload_id in ids]

    def delete_uploads(self, upload_ids: Sequence[int]) -> None:
        """Delete uploaded files that no task is made of. Raises as `import_tasks`."""
        if not upload_ids:
            return
        path = f"/api/projects/{self.id}/file-uploads"
        body = {"file_upload_ids": list(upload_ids)}  # without ids, all uploads of the project would go
        self.studio.call("DELETE", path, "deleted", _READ_TIMEOUT_S, body=body)

    def change_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Set the data of a task, all of them. Raises as `import_tasks`."""
        self.studio.call("PATCH", f"/api/tasks/{task_id}/", "id", _READ_TIMEOUT_S, body={"data": data})

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction; one that is gone already is no error."""
        with suppress(StudioMissingError):
            self.studio.call("DELETE", f"/api/predictions/{prediction_id}/", None, _READ_TIMEOUT_S)

    def held_versions(self) -> list[HeldVersion]:
        """The versions of the predictions that the project's tasks hold, the newest first."""
        path = f"/api/projects/{self.id}/model-versions/"
        found = self.studio.call("GET", path, "static", _READ_TIMEOUT_S, query={"extended": "true"})
        return [HeldVersion(str(one["model_version"]), int(one["count"]), str(one["latest"])) for one in found]

    def delete_version(self, model_version: str) -> None:
        """Delete all predictions of a version, whichever task holds them."""
        path = f"/api/projects/{self.id}/model-versions/"
        body = {"model_version": model_version}
        self.studio.call("DELETE", path, "deleted_predictions", _IMPORT_TIMEOUT_S, body=body)

    def _with_named_data(self, task: Task) -> Task:
        # Bare addresses are imported without a field's name. Label Studio puts in the name only when it asks a backend.
        data = task_data_of(task)
        key = first_data_key(self.label_config)
        if key is None or data is None or _UNNAMED not in data:
            return task
        return {**task, "data": {key if name == _UNNAMED else name: value for name, value in data.items()}}

    def _query(self, filters: Sequence[Filter], order: str = "tasks:id") -> dict[str, str]:
        selection: dict[str, Any] = {"ordering": [order]}
        if filters:
            selection["filters"] = {"conjunction": "and", "items": list(filters)}
        return {
            "project": str(self.id),
            "resolve_uri": "false",
            "query": json.dumps(selection, separators=(",", ":")),
        }


def open_project(studio: Studio, project_id: int) -> Project:
    """The project of this number. Raises StudioMissingError, StudioError, requests.Timeout."""
    query = {"include": "id,title,label_config,created_at"}
    try:
        found = studio.call("GET", f"/api/projects/{project_id}/", None, _READ_TIMEOUT_S, query=query)
    except StudioMissingError:
        raise StudioMissingError(
            f"Label Studio shows the token's user no project {project_id}, {told_projects(studio)}"
        ) from None
    return Project(studio, project_id, str(found["title"]), str(found["label_config"]), found.get("created_at"))


def projects_of(studio: Studio) -> list[dict[str, Any]]:
    """The projects that the token shows: `id` and `title` of each. Raises StudioError, requests.Timeout."""
    query = {"include": "id,title", "page_size": "1000"}
    return list(studio.call("GET", "/api/projects/", "results", _READ_TIMEOUT_S, query=query))


def told_projects(studio: Studio) -> str:
    """Which projects there are, for a person who named another one: the first of them, with number and title."""
    query = {"include": "id,title", "page_size": str(_SHOWN_PROJECTS)}
    try:
        page = studio.call("GET", "/api/projects/", None, _READ_TIMEOUT_S, query=query)
        shown = ", ".join(f'{project["id"]} "{shortened(project["title"], 40)}"' for project in page["results"])
        more = int(page.get("count", 0)) - len(page["results"])
    except (StudioError, requests.Timeout, TypeError, KeyError):
        return "and no list of projects: check that the token's user may see projects"
    if not shown:
        return "and no other: check that the token is of the same organization"
    return f"but {shown}" + (f" and {more:,} more" if more > 0 else "")


def stored_name(file_name: str) -> str:
    """What Label Studio calls an uploaded file of this name, without the eight digits that it puts before it."""
    return re.sub(r"[^-\w.]", "", file_name.strip().replace(" ", "_"))
