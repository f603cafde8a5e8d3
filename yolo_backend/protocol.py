"""Label Studio's tasks, predictions and regions, as plain data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NotRequired, TypedDict
from urllib.parse import urlsplit

import msgspec

from yolo_backend.addresses import origin_of


class Task(TypedDict):
    """A task as Label Studio sends or lists it, as far as we read it.

    Anybody may post one, and it may lack anything, or have something else in its place: ask `task_id_of` and
    `task_data_of`. A click brings drafts, annotations and predictions; a list has the fields that were asked for.
    """

    id: NotRequired[int]
    data: NotRequired[Mapping[str, Any]]
    meta: NotRequired[Mapping[str, Any] | None]
    drafts: NotRequired[Sequence[Mapping[str, Any]]]
    annotations: NotRequired[Sequence[Mapping[str, Any]]]
    predictions: NotRequired[Sequence[Mapping[str, Any]]]
    total_annotations: NotRequired[int]
    total_predictions: NotRequired[int]
    created_at: NotRequired[str]


class Region(TypedDict):
    """A region as we make it: where on which image it is, and what. Those of others may lack anything.

    `value` depends on the `type`, the control's tag in lower case mostly. `item_index` is the page of a `valueList`,
    `parentID` the id of the region that it is a part of.
    """

    id: str
    from_name: str
    to_name: str
    type: str
    value: dict[str, Any]
    original_width: int
    original_height: int
    image_rotation: int
    score: NotRequired[float]
    item_index: NotRequired[int]
    parentID: NotRequired[str]
    meta: NotRequired[dict[str, Any]]


class Prediction(TypedDict):
    """What Label Studio stores of a task: regions, the mean of their scores, and the version of what made them.

    A model class's own hook may have changed it, so its regions may lack anything.
    """

    result: list[Region]
    score: NotRequired[float]
    model_version: NotRequired[str]


def task_id_of(task: Task) -> int | None:
    """The task's id in Label Studio."""
    task_id = task.get("id")
    return task_id if isinstance(task_id, int) and not isinstance(task_id, bool) else None


def task_data_of(task: Task) -> Mapping[str, Any] | None:
    """The task's data; None if it has none, or something else in their place."""
    data = task.get("data")
    return data if isinstance(data, Mapping) else None


def project_id_of(project: str | None) -> str:
    """The project's id of what Label Studio sends as `project`: "7.1699..." is the id and when it was created."""
    return (project or "").partition(".")[0]


def sent_project(project_id: int | str, created_at: str) -> str:
    """What Label Studio sends as `project`, of what its API says of one. Raises ValueError for no time in ISO 8601."""
    return f"{project_id}.{int(datetime.fromisoformat(created_at).timestamp())}"


def project_of_event(data: Mapping[str, Any]) -> str:
    """What Label Studio sends as `project` elsewhere, of a webhook's body; the id alone where no more is said."""
    project = data.get("project")
    if not isinstance(project, Mapping):
        return str(project or "")
    project_id, created_at = project.get("id", ""), project.get("created_at")
    with contextlib.suppress(TypeError, ValueError):
        return sent_project(project_id, created_at)  # type: ignore[arg-type]  # anybody's
    return str(project_id)


def project_key(studio_url: str, project: str) -> str | None:
    """By what a project's trained weights are known, such as `7-3f9a1c2e`: its id, and a digest of whose it is.

    The digest is of Label Studio's address, the id and the time of creation, so another project of the same id is
    another one. None where `project` isn't what Label Studio sends: "7.1699...".
    """
    sent = re.fullmatch(r"(\d{1,18})\.(\d{1,12})", project, re.ASCII)
    if sent is None:
        return None
    try:
        scheme, host, port = origin_of(studio_url)
    except ValueError:
        return None
    path = urlsplit(studio_url).path.rstrip("/")
    whose = json.dumps([scheme, host, port, path, int(sent[1]), int(sent[2])])
    return f"{int(sent[1])}-{hashlib.sha256(whose.encode()).hexdigest()[:8]}"


def is_key(text: str) -> bool:
    """Returns True if it looks like a `project_key`."""
    return re.fullmatch(r"\d{1,18}-[0-9a-f]{8}", text, re.ASCII) is not None


def to_json(value: Any) -> bytes:
    """JSON in UTF-8. Raises TypeError for what has no JSON."""
    try:
        return msgspec.json.encode(value)  # in a tenth of the time, and there may be thousands of predictions
    except (TypeError, ValueError):  # such as half a character
        return json.dumps(value).encode()


def from_json(content: bytes) -> Any:
    """What JSON says; as with Python's own reader, NaN and half a character are let pass. Raises ValueError."""
    with contextlib.suppress(ValueError):
        return msgspec.json.decode(content)
    return json.loads(content)
