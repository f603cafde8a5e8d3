"""What is to be registered: files and addresses, and which of them Label Studio takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from yolo_backend.errors import UserError
from yolo_backend.label_studio.projects import MAX_UPLOAD_BYTES
from yolo_backend.protocol import Prediction
from yolo_backend.registering.finding import TAKEN_SUFFIXES, FileOrAddress, readable

LOCAL_FILES = "/data/local-files/?d="
# Label Studio may still store an import that had no answer. If the command is run again too soon, it sees no task of
# it, and sends it twice.
RUN_IT_AGAIN, RUN_IT_AGAIN_LATER = "Run it again", "Run it again after two minutes"


class RegisterError(UserError):
    """Not all could be registered. The message says why, how many were, and what to do; `again` says when."""

    def __init__(self, message: str, again: str = RUN_IT_AGAIN) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True)
class Item:
    """What a task is made of: a file, which is uploaded, or an address; more of the task's data; and its labels.

    `told` says how many of its labels became something else, and what; `lost` how many are left out, and why.
    """

    image: FileOrAddress
    data: Mapping[str, Any] = field(default_factory=dict)
    predictions: Sequence[Prediction] = ()
    annotations: Sequence[Mapping[str, Any]] = ()
    told: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)


def check_files(images: Iterable[FileOrAddress], *, suffixes: frozenset[str] = TAKEN_SUFFIXES) -> None:
    """Raises RegisterError for a file that Label Studio doesn't take, or that isn't there."""
    for file in images:
        if not isinstance(file, Path):
            continue
        if readable(file) != str(file):
            raise RegisterError(f"{readable(file)}: its name isn't text in UTF-8: rename it")
        if file.suffix.lower() not in suffixes:
            raise RegisterError(f"{file}: Label Studio takes no {file.suffix or 'such'} files: make it a PNG or JPEG")
        try:
            size_bytes = file.stat().st_size
        except OSError as error:
            raise RegisterError(f"{file} can't be read: {error.strerror}") from None
        if not 0 < size_bytes <= MAX_UPLOAD_BYTES:
            raise RegisterError(f"{file} has {size_bytes:,} bytes: Label Studio takes 1 to {MAX_UPLOAD_BYTES:,}")


def by_local_files(
    items: Iterable[Item], document_root: Path, targets: Mapping[FileOrAddress, Path] | None = None
) -> list[Item]:
    """The items, with addresses for files below the document root of Label Studio's Local Files, as it is here.

    A file that is to be moved has the place among `targets` where it will be. Raises RegisterError for any other file.
    """
    root = document_root.resolve()

    def address(file: Path) -> str:
        try:
            return LOCAL_FILES + quote(file.resolve().relative_to(root).as_posix())
        except ValueError:
            raise RegisterError(
                f"{file} isn't below {document_root}, the Local Files folder: move the file there"
            ) from None

    return [
        replace(item, image=address((targets or {}).get(item.image, item.image)))
        if isinstance(item.image, Path)
        else item
        for item in items
    ]
