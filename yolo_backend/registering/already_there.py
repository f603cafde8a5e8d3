"""Which items needn't be registered: the project has them already, or they are given twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from yolo_backend.addresses import uploaded_name
from yolo_backend.label_studio.projects import Project, stored_name
from yolo_backend.labels.control import Control
from yolo_backend.labels.task_values import find_value
from yolo_backend.registering.items import LOCAL_FILES, Item

# A field in a task's `meta`, if we uploaded the file; until 0.2 in its data.
DIGEST_KEY = "sha256"
# A field in its data, because an upload's address has digits before the name, and letters that were left out.
FILE_NAME_KEY = "file"
# Why an item was left out.
IS_THERE = "registered already"
NAME_IS_THERE = "an uploaded file has this name"
IS_REPEATED = "the same as another of these"


class ItemFileError(Exception):
    """A file that can't be read."""


@dataclass(frozen=True)
class Candidate:
    """An item that may be registered, by what it is known again, and its content if it is a file.

    In an import it takes `json_bytes`, with its address and its labels.
    """

    item: Item
    known_by: str
    json_bytes: int
    content: bytes = b""

    @classmethod
    def read(cls, item: Item) -> Candidate:
        """The item with its file's content. Raises ItemFileError."""
        json_bytes = len(json.dumps([str(item.image), item.data, *item.predictions, *item.annotations]))
        if not isinstance(item.image, Path):
            return cls(item, _known_address(item.image), json_bytes)
        try:
            content = item.image.read_bytes()
        except OSError as error:
            raise ItemFileError(f"{item.image} can't be read: {error.strerror}") from None
        return cls(item, hashlib.sha256(content).hexdigest(), json_bytes, content)

    @property
    def file_name(self) -> str | None:
        """The name of a file; None for an address."""
        return self.item.image.name if isinstance(self.item.image, Path) else None


class KnownItems:
    """What the project's tasks hold, and what was given before."""

    def __init__(self, project: Project, control: Control) -> None:
        self._held: set[str] = set()
        self._names: set[str] = set()
        self._given: set[str] = set()
        for task in project.tasks(fields=["data", "meta"]):
            data = task["data"]
            values = find_value(data, control.value)
            addresses = [
                value for value in (values if isinstance(values, list) else [values]) if isinstance(value, str)
            ]
            self._held.update(map(_known_address, addresses))
            if digest := (task.get("meta") or {}).get(DIGEST_KEY) or data.get(DIGEST_KEY):
                self._held.add(str(digest))
            else:
                self._names.update(name for address in addresses if (name := uploaded_name(address)))

    def why_left_out(self, candidate: Candidate) -> str | None:
        """Why this one needn't be registered; None if it has to be."""
        if candidate.known_by in self._held:
            return IS_THERE
        if candidate.known_by in self._given:
            return IS_REPEATED
        if candidate.file_name and stored_name(candidate.file_name) in self._names:
            return NAME_IS_THERE
        self._given.add(candidate.known_by)
        return None


def _known_address(address: str) -> str:
    """An address as it is known again: for Local Files, Label Studio's storages write its own address before it."""
    _, is_local, path = address.partition(LOCAL_FILES)
    return LOCAL_FILES + unquote(path) if is_local else address
