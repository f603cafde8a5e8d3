"""What the formats have in common: text, JSON, numbers, and what is wrong with them, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic_core
from pydantic import BaseModel, Field, ValidationError

from yolo_backend.registering.objects import Aside, BoxXYXY, LabelFileError, Point

MAX_MASK_PX = 300_000_000
Parsed = TypeVar("Parsed", bound=BaseModel)
Pixels = Annotated[float, Field(ge=-1e9, le=1e9)]
Score = Annotated[float, Field(ge=0, le=1)]


def read_text(path: Path) -> str:
    """The text of a file. Raises LabelFileError."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise LabelFileError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabelFileError(f"{path} can't be read: it isn't text in UTF-8") from None


def read_json(text: str, where: str) -> Any:
    """What this JSON holds. Raises LabelFileError."""
    try:
        return pydantic_core.from_json(text)
    except ValueError as error:
        raise LabelFileError(f"{where}: Invalid JSON: {error}") from None


def parse(model: type[Parsed], content: Any, where: str, field: str = "") -> Parsed:
    """What JSON held, perhaps in a field, as this model. Raises LabelFileError, which names the field."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(filter(None, [field, *map(str, problem["loc"])]))
        what = "Input should be an object" if problem["type"] == "model_type" else problem["msg"]
        raise LabelFileError(f"{where}: {field + ': ' if field else ''}{what}") from None


def parse_each(model: type[Parsed], content: Iterable[Any], path: Path, aside: Aside) -> Iterator[tuple[str, Parsed]]:
    """Each entry of a list as this model, and where it is. An odd one is put aside."""
    for number, said in enumerate(content):
        where = f"{path}: entry {number}"
        try:
            yield where, parse(model, said, where)
        except LabelFileError as error:
            aside.odd.append(str(error))


def xyxy_of(x: float, y: float, width: float, height: float) -> BoxXYXY:
    """A box of its top left corner and its size."""
    return x, y, x + width, y + height


def pairs(numbers: Sequence[float], where: str) -> list[Point]:
    """Numbers as points. Raises LabelFileError if one has no partner, or is no number."""
    if len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise LabelFileError(f"{where}: {len(numbers)} numbers are no points of x and y")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
