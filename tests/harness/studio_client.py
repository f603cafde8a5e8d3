"""What a person does in Label Studio, through the calls that its pages make."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from yolo_backend.label_studio.studio import Studio

BCCD_CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image">
    <Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/>
  </RectangleLabels>
</View>
"""


class StudioClient:
    """A person with a token. Every failing call raises requests.HTTPError with Label Studio's answer in it."""

    def __init__(self, url: str, token: str) -> None:
        self._studio = Studio(url, token)

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """One call of the API; the JSON that it answers."""
        for renew in (False, True):  # a Label Studio that has just been started may refuse a good token
            response = requests.request(
                method,
                self._studio.url + path,
                headers={"Authorization": self._studio.authorization(renew=renew) or ""},
                timeout=200,
                **kwargs,
            )
            if response.status_code != requests.codes.unauthorized or not self._studio.has_personal_token:
                break
        if not response.ok:
            raise requests.HTTPError(f"{response.status_code} {response.text[:2000]}", response=response)
        return response.json() if response.content else None

    def create_project(self, title: str, label_config: str = BCCD_CONFIG) -> int:
        project = self.call("POST", "/api/projects/", json={"title": title, "label_config": label_config})
        return int(project["id"])

    def set_label_config(self, project: int, label_config: str) -> None:
        self.call("PATCH", f"/api/projects/{project}/", json={"label_config": label_config})

    def upload(self, project: int, paths: list[Path]) -> None:
        # Of several files under one field name Label Studio takes the last alone.
        files = [(path.name, (path.name, path.read_bytes())) for path in paths]
        self.call("POST", f"/api/projects/{project}/import", files=files)

    def import_tasks(self, project: int, tasks: list[dict[str, Any]]) -> None:
        self.call("POST", f"/api/projects/{project}/import", json=tasks)

    def connect(self, project: int, backend_url: str) -> dict[str, Any]:
        body = {"project": project, "url": backend_url, "title": "YOLO", "is_interactive": True}
        return dict(self.call("POST", "/api/ml", json=body))

    def retrieve_predictions(self, project: int, ordering: Sequence[str] = ()) -> None:
        """Select all tasks, Actions > Retrieve Predictions; `ordering` is the list's, such as `-tasks:id`."""
        self._act("retrieve_tasks_predictions", project, ordering)

    def delete_predictions(self, project: int) -> None:
        """Select all tasks, Actions > Delete Predictions."""
        self._act("delete_tasks_predictions", project)

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks with their predictions, in the order of their ids."""
        tasks: list[dict[str, Any]] = []
        for number in itertools.count(1):
            page = self.call("GET", f"/api/tasks?project={project}&page={number}&page_size=500&fields=all")
            tasks += page["tasks"]
            if len(tasks) >= page["total"]:
                return sorted(tasks, key=lambda task: int(task["id"]))
        raise AssertionError

    def total_predictions(self, project: int) -> int:
        """How many predictions the project's tasks hold."""
        return int(self.call("GET", f"/api/tasks?project={project}&page_size=1")["total_predictions"])

    def predictions(self, project: int) -> dict[int, list[dict[str, Any]]]:
        """The stored predictions of each task, by the task's id."""
        return {int(task["id"]): list(task["predictions"]) for task in self.tasks(project)}

    def annotate(self, task_id: int, regions: Sequence[Mapping[str, Any]]) -> None:
        """What a person submits of a task."""
        self.call("POST", f"/api/tasks/{task_id}/annotations", json={"result": list(regions)})

    def export(self, project: int, kind: str) -> bytes:
        """What Export gives, such as `COCO`: a zip file."""
        response = requests.get(
            f"{self._studio.url}/api/projects/{project}/export?exportType={kind}",
            headers={"Authorization": self._studio.authorization() or ""},
            timeout=200,
        )
        response.raise_for_status()
        return response.content

    def _act(self, action: str, project: int, ordering: Sequence[str] = ()) -> None:
        body = {"selectedItems": {"all": True, "excluded": []}, "project": project, "ordering": list(ordering)}
        self.call("POST", f"/api/dm/actions?id={action}&project={project}", json=body)


def boxes(prediction: Mapping[str, Any]) -> list[tuple[str, float, float, float, float, float]]:
    """A prediction's regions without what is random in them: label, x, y, width, height, score."""
    return [
        (
            region["value"]["rectanglelabels"][0],
            *(region["value"][key] for key in ("x", "y", "width", "height")),
            region["score"],
        )
        for region in prediction["result"]
    ]


def uploaded_name(task: dict[str, Any]) -> str:
    """The name that an uploaded file had: Label Studio puts a random prefix before it, and tasks in any order."""
    return str(task["data"]["image"]).rsplit("/", 1)[-1].split("-", 1)[-1]


def metric(backend_url: str, line: str) -> float:
    """A number of the backend's /metrics, 0 where it isn't there yet; `line` is its name with its labels."""
    text = requests.get(f"{backend_url}/metrics", timeout=10).text
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0
