"""JSON lines: an image a line, with its boxes in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from yolo_backend.registering.formats.parsing import Pixels, Score, parse, read_json, xyxy_of
from yolo_backend.registering.objects import Entry, FileObject, box, of_image


class _Box(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str
    x: Pixels
    y: Pixels
    width: Pixels
    height: Pixels
    score: Score | None = None


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str = Field(min_length=1)
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    boxes: list[Any]


def line_entries(path: Path, text: str) -> Iterator[Entry]:
    """The labels of each line's image. Raises LabelFileError for a line that is none: whose it is isn't known."""
    for number, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}:{number}"
        line = parse(_Line, read_json(content, where), where)
        readers = [partial(_object, said, where, position) for position, said in enumerate(line.boxes)]
        size_wh = (line.width, line.height) if line.width and line.height else None
        yield line.image, of_image(where, readers, size_wh)


def _object(said: Any, where: str, position: int) -> FileObject:
    found = parse(_Box, said, where, f"boxes.{position}")
    return box(found.label, xyxy_of(found.x, found.y, found.width, found.height), found.score, where)
