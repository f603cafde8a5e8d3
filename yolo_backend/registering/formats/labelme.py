"""labelme's JSON, a file for each image: rectangles, polygons, circles, points, masks, rotated boxes."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import PngImagePlugin
from pydantic import BaseModel, PositiveInt

from yolo_backend.detection.masks import Mask
from yolo_backend.registering.formats.parsing import MAX_MASK_PX, Pixels, Score, parse
from yolo_backend.registering.objects import (
    FileObject,
    ImageLabels,
    LabelFileError,
    Point,
    box,
    box_around,
    ellipse,
    key_points,
    masked,
    of_image,
    polygon,
    quadrilateral,
)

_LEAST_POINTS = {"point": 1, "points": 1, "rectangle": 2, "circle": 2, "mask": 2, "polygon": 3}
_LEAST_POINTS |= {"rotation": 4, "oriented_rectangle": 4}


class _Shape(BaseModel):
    label: str
    points: list[tuple[Pixels, Pixels]]
    shape_type: str | None = "polygon"
    score: Score | None = None
    mask: str | None = None


class _File(BaseModel):
    shapes: list[Any]
    imagePath: str = ""  # noqa: N815  as the file calls them
    imageWidth: PositiveInt | None = None  # noqa: N815
    imageHeight: PositiveInt | None = None  # noqa: N815


def read_labelme(path: Path, content: Any) -> tuple[str, ImageLabels]:
    """The image's path as the file says it, and its labels, of the upright image. Raises LabelFileError."""
    file = parse(_File, content, str(path))
    readers = [partial(_object, shape, f"{path}: shape {number}") for number, shape in enumerate(file.shapes, 1)]
    size_wh = (file.imageWidth, file.imageHeight) if file.imageWidth and file.imageHeight else None
    return file.imagePath, of_image(str(path), readers, size_wh)


def _object(said: Any, where: str) -> FileObject:
    shape = parse(_Shape, said, where)
    points, label, score = shape.points, shape.label, shape.score
    kind = shape.shape_type or "polygon"
    least = _LEAST_POINTS.get(kind)
    if least is None:
        raise LabelFileError(f"{where} is a {kind}, which no control of an image holds")
    if len(points) < least:
        raise LabelFileError(f"{where}: a {kind} has {least} points at least, not {len(points)}")
    match kind:
        case "rectangle":
            return box(label, box_around(points), score, where)
        case "rotation" | "oriented_rectangle":
            return quadrilateral(label, points, score, where)
        case "polygon":
            return polygon(label, [points], score, where)
        case "circle":
            (x, y), edge = points[:2]
            diameter = 2 * math.dist((x, y), edge)
            return ellipse(label, (x, y, diameter, diameter, 0.0), score, where)
        case "point" | "points":
            return key_points(label, [(x, y, 1.0) for x, y in points], score, where)
    return masked(label, _mask(shape.mask, points, where), score, where)


def _mask(encoded: str | None, points: Sequence[Point], where: str) -> Mask:
    """The PNG within the box of its two points."""
    try:
        content = io.BytesIO(base64.b64decode(encoded or "", validate=True))
        # Not Image.open: Ultralytics replaces it by a function that may install a package.
        with PngImagePlugin.PngImageFile(content, "") as image:
            bitmap = np.asarray(image.convert("L")) > 0 if image.width * image.height <= MAX_MASK_PX else None
    except (binascii.Error, ValueError, OSError, SyntaxError) as error:
        raise LabelFileError(f"{where}: its mask can't be read: {error}") from None
    if bitmap is None:
        raise LabelFileError(f"{where}: its mask has more than {MAX_MASK_PX:,} pixels")
    left, top, _, _ = box_around(points)
    return Mask.of_bitmap(bitmap, (round(left), round(top)))
