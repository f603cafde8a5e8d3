"""What a real Label Studio exports, and its regions in pixels."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import requests

from tests.harness.studio_client import StudioClient, uploaded_name
from yolo_backend.labels.places import corners_of


def export(client: StudioClient, project: int, kind: str, folder: Path) -> Path:
    """What Label Studio exports, unpacked into the folder, or as its export.json."""
    authorization = {"Authorization": client._studio.authorization() or ""}
    url = f"{client._studio.url}/api/projects/{project}/export?exportType={kind}"
    answer = requests.get(url, headers=authorization, timeout=120)
    answer.raise_for_status()
    folder.mkdir(parents=True)
    if kind == "JSON":
        (folder / "export.json").write_bytes(answer.content)
    else:
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            archive.extractall(folder)
    return folder


def regions_by_name(client: StudioClient, project: int, kind: str = "annotations") -> dict[str, list[dict[str, Any]]]:
    """The regions of each task's only annotation, by the name of its file."""
    found = {}
    for task in client.tasks(project):
        (labels,) = task[kind]
        found[uploaded_name(task)] = labels["result"]
    return found


def without_origin(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Label Studio's note of who drew a region is its own."""
    return {
        name: [{key: value for key, value in region.items() if key != "origin"} for region in regions]
        for name, regions in found.items()
    }


def xyxy_of(region: dict[str, Any]) -> list[float]:
    """A rectangle's box in pixels."""
    value, width, height = region["value"], region["original_width"], region["original_height"]
    left, top = value["x"] / 100 * width, value["y"] / 100 * height
    return [left, top, left + value["width"] / 100 * width, top + value["height"] / 100 * height]


def corners(region: dict[str, Any]) -> list[tuple[float, float]]:
    """A rectangle's four corners in pixels, from the leftmost on: whichever it begins with, it is one rectangle."""
    return sorted(corners_of(region["value"], (region["original_width"], region["original_height"])))
