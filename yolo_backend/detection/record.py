"""What a trained model's file says of itself: a record in the .pt, so that one fingerprint covers model and thresholds.

A .pt is a zip archive. The record lies in it beside torch's own, which torch doesn't mind, and is read without torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

RECORD = "yolo_backend.json"
_MAX_BYTES = 4_000_000  # of ten thousand classes, with room


@dataclass(frozen=True)
class TrainedRecord:
    """The thresholds by class name; the run that made the weights, and the key of the project that it was of.

    `kind` is that of the weights; None in files of earlier versions.
    """

    thresholds: Mapping[str, Annotated[float, msgspec.Meta(ge=0, le=1)]]
    run: str
    project: str
    kind: str | None = None


def read_record(path: Path) -> TrainedRecord | None:
    """The record of a file of weights, None where it has none. Raises ValueError for a broken one, and OSError."""
    if path.suffix != ".pt" or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if PurePosixPath(name).parts[1:] == (RECORD,)), None)
            if name is None:
                return None
            if archive.getinfo(name).file_size > _MAX_BYTES:
                raise ValueError("it is too long")
            content = archive.read(name)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # damaged, encrypted, or compressed oddly
        raise ValueError(str(error)) from None
    return msgspec.json.decode(content, type=TrainedRecord)


def add_record(path: Path, record: TrainedRecord) -> None:
    """Put a record into a .pt that has none. Raises OSError."""
    with zipfile.ZipFile(path, "a") as archive:
        root = PurePosixPath(archive.namelist()[0]).parts[0]
        # Without the time of day: the same weights and thresholds make the same file.
        archive.writestr(zipfile.ZipInfo(f"{root}/{RECORD}"), msgspec.json.encode(record, order="deterministic"))
