"""What an exported file says of itself, and whether its class names can be right."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ultralytics.nn.backends.base import BaseBackend

from yolo_backend.detection.weights import WeightsFileError

_NO_NAMES = (
    'has no class names in its metadata: export it with Ultralytics, YOLO("best.pt").export(format="onnx"), or add '
    "them (key `names`, such as {0: 'cat', 1: 'dog'})"
)


class ExportMetadata(BaseModel):
    """The metadata that Ultralytics writes into an export. Only `names` has to be there.

    `kind` is what Ultralytics calls the task. `args` are those of the export, `batch` is the number of images with
    which it was traced, `imgsz` is (height, width). `points_shape` is how many key points a box has, and how many
    numbers each of them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    names: dict[int, str]
    kind: str | None = Field(None, validation_alias="task")
    head: str | None = None
    stride: int = Field(32, ge=1, le=1024)
    batch: int = Field(1, ge=1)
    channels: int = 3
    imgsz: tuple[int, int] | None = None
    args: dict[str, Any] = {}
    end2end: bool = False
    points_shape: tuple[int, Literal[2, 3]] | None = Field(None, validation_alias="kpt_shape")

    @field_validator("names", mode="before")
    @classmethod
    def _number(cls, names: Any) -> Any:
        if isinstance(names, list | tuple):
            names = dict(enumerate(names))
        return {key: str(name) for key, name in names.items()} if isinstance(names, dict) else names

    @field_validator("imgsz", mode="before")
    @classmethod
    def _pair(cls, size: Any) -> Any:
        size = [size] if isinstance(size, int) else size
        return size * 2 if isinstance(size, list) and len(size) == 1 else size

    @property
    def has_nms(self) -> bool:
        """Returns True if NMS is part of the file, with thresholds of its own."""
        return bool(self.args.get("nms"))

    @property
    def is_dynamic(self) -> bool:
        """Returns True if it was exported for images of any size."""
        return bool(self.args.get("dynamic"))


def read_metadata(path: Path, name: str) -> ExportMetadata:
    """The metadata of an ONNX file. `name` is that of the weights, for errors. Raises WeightsFileError."""
    said = {key: _read(value) for key, value in BaseBackend.read_metadata(path).items()}
    if not said.get("names"):
        raise WeightsFileError(f"{name} {_NO_NAMES}")
    try:
        metadata = ExportMetadata.model_validate(said)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise WeightsFileError(
            f"{name} has metadata that can't be read, {key}={str(said[key])[:60]!r}: export it with Ultralytics, "
            'YOLO("best.pt").export(format="onnx")'
        ) from None
    check_names(name, metadata.names)
    return metadata


def _read(text: Any) -> Any:
    """A value, written as Python writes it, or as JSON."""
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def check_names(name: str, class_names: Mapping[int, str]) -> None:
    """Raises WeightsFileError for names that can't be those of the classes that a network answers with."""
    if not any(label.strip() for label in class_names.values()):
        raise WeightsFileError(f"{name} has no class names: train or export it with names for its classes")
    if sorted(class_names) != list(range(len(class_names))):
        raise WeightsFileError(
            f"{name} has {len(class_names)} class names, numbered {min(class_names)} to {max(class_names)}: number "
            f"them 0 to {len(class_names) - 1}, one for each class of the network"
        )


def nameless(name: str, class_names: Mapping[int, str]) -> str | None:
    """What to say about classes that no label can match."""
    numbers = [str(number) for number, label in class_names.items() if not label.strip()]
    if not numbers:
        return None
    return f"Of the classes of {name}, {', '.join(numbers[:8])} have no name: no label gets their boxes"
