"""A project of Label Studio: its tasks, listed and registered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolo_backend.protocol import Task
from yolo_backend.studio import Studio, StudioError

_PAGE_TASKS = 500
_READ_TIMEOUT_S = 120.0
_IMPORT_TIMEOUT_S = 300.0
# Label Studio's own limits for one request (DATA_UPLOAD_MAX_NUMBER_FILES, DATA_UPLOAD_MAX_MEMORY_SIZE).
MAX_UPLOAD_FILES = 100
MAX_UPLOAD_BYTES = 200_000_000

Filter = Mapping[str, Any]


@dataclass(frozen=True)
class Project:
    """A project as it was when it was opened."""

    studio: Studio
    id: int
    title: str
    label_config: str

    @property
    def url(self) -> str:
        """The page of the project."""
        return f"{self.studio.url}/projects/{self.id}/data"

    def count(self, filters: Sequence[Filter] = ()) -> int:
        """How many tasks pass these filters."""
        query = {**self._query(filters), "page_size": "1", "include": "id"}
        return int(self.studio.call("GET", "/api/tasks/", "total", _READ_TIMEOUT_S, query=query))

    def tasks(
        self, filters: Sequence[Filter] = (), *, fields: Sequence[str] = (), newest_first: bool = False
    ) -> Iterator[Task]:
        """All tasks that pass these filters, in the order of their ids, a page at a time.

        A task has all its fields, predictions and annotations too, or only those named. What is registered or deleted
        meanwhile moves no other task out of sight, for a page begins after the last task of the one before.
        """
        last: int | None = None
        narrowed = {"include": ",".join({"id", *fields})} if fields else {"fields": "all"}
        while True:
            after = [] if last is None else [task_filter("id", "less" if newest_first else "greater", last, "Number")]
            query = {
                **self._query([*filters, *after], order="-tasks:id" if newest_first else "tasks:id"),
                **narrowed,
                "page_size": str(_PAGE_TASKS),
            }
            page = self.studio.call("GET", "/api/tasks/", "tasks", _READ_TIMEOUT_S, query=query)
            yield from page
            if len(page) < _PAGE_TASKS:
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

    def upload(self, files: Sequence[tuple[str, bytes]]) -> list[str]:
        """Upload files, each a name and its content; what a task's data say of each, in order.

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
        return [f"/data/{names[upload_id]}" for upload_id in ids]

    def change_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Set the data of a task, all of them. Raises as `import_tasks`."""
        self.studio.call("PATCH", f"/api/tasks/{task_id}/", "id", _READ_TIMEOUT_S, body={"data": data})

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete one prediction; one that is gone already is no error."""
        self.studio.call("DELETE", f"/api/predictions/{prediction_id}/", None, _READ_TIMEOUT_S)

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
    query = {"include": "id,title,label_config"}
    found = studio.call("GET", f"/api/projects/{project_id}/", None, _READ_TIMEOUT_S, query=query)
    return Project(studio, project_id, str(found["title"]), str(found["label_config"]))


def projects_of(studio: Studio) -> list[dict[str, Any]]:
    """The projects that the token shows: `id` and `title` of each. Raises StudioError, requests.Timeout."""
    query = {"include": "id,title", "page_size": "1000"}
    return list(studio.call("GET", "/api/projects/", "results", _READ_TIMEOUT_S, query=query))


def task_filter(column: str, operator: str, value: Any, value_type: str) -> Filter:
    """A filter of the Data Manager, such as `task_filter("total_predictions", "equal", 0, "Number")`."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": value_type, "value": value}
