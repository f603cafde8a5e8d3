"""CreateML's JSON: boxes by their center, all images in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, Field

from yolo_backend.registering.finding import shown
from yolo_backend.registering.formats.parsing import Pixels, Score, parse, parse_each, xyxy_of
from yolo_backend.registering.objects import Aside, Entry, FileObject, box, of_image


class _Coordinates(BaseModel):
    x: Pixels
    y: Pixels
    width: Pixels
    height: Pixels


class _Annotation(BaseModel):
    label: str
    coordinates: _Coordinates
    confidence: Score | None = None


class _Image(BaseModel):
    image: str = Field(min_length=1, validation_alias=AliasChoices("image", "imagefilename"))
    annotations: list[Any] = Field(validation_alias=AliasChoices("annotations", "annotation"))


def createml_entries(path: Path, content: Sequence[Any], aside: Aside) -> Iterator[Entry]:
    """The labels of each image."""
    for where, image in parse_each(_Image, content, path, aside):
        readers = [
            partial(_object, annotation, f"{where}: annotation {position}")
            for position, annotation in enumerate(image.annotations)
        ]
        yield image.image, of_image(f"{path}: image {shown(image.image)}", readers, None)


def _object(said: Any, where: str) -> FileObject:
    annotation = parse(_Annotation, said, where)
    place = annotation.coordinates
    left, top = place.x - place.width / 2, place.y - place.height / 2
    return box(annotation.label, xyxy_of(left, top, place.width, place.height), annotation.confidence, where)
