"""What people labelled in an image, as their files say it: a box, a polygon, a mask, an ellipse, or key points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.detection.masks import Mask
from yolo_backend.errors import UserError
from yolo_backend.labels.outlines import mask_of
from yolo_backend.labels.places import Box, corners_of_box

SizeWH = tuple[int, int]
BoxXYXY = tuple[float, float, float, float]
Point = tuple[float, float]
Outline = tuple[Point, ...]
KeyPoint = tuple[float, float, float]
"""x, y and a score from 0 to 1."""
MISSING_POINT: KeyPoint = (math.nan, math.nan, math.nan)

BOX, ROTATED, POLYGON, MASK, ELLIPSE, POINTS, WHOLE = (
    "box",
    "rotated box",
    "polygon",
    "mask",
    "ellipse",
    "key points",
    "answer about the whole image",
)
"""The shapes of objects, as messages call them."""

_ELLIPSE_POINTS = 64
_SAME_PX = 1.0  # corners that are no further from a rectangle's are its corners


class LabelFileError(UserError):
    """A file of labels that can't be used; the message names file and line, and says what is wrong."""


@dataclass(frozen=True)
class FileObject:
    """One object in pixels of the upright image. `where` is its line or entry; `score` is None if none is given.

    `box_xyxy` is the box around it. By its `shape` it has more: a rotated box and an ellipse a `box_xywhr`; a polygon,
    and a rotated box that was drawn by its corners, `outlines`; a mask a `mask`; key points `points`, each with its
    score, which are NaN where one isn't there, perhaps their names, and what was drawn of the object beside them: its
    `outlines` or its `mask`. Of Label Studio's own it has the `regions`, and labels beside the first.
    """

    label: str
    box_xyxy: BoxXYXY
    score: float | None
    where: str
    shape: str = BOX
    box_xywhr: Box | None = None
    outlines: tuple[Outline, ...] = ()
    mask: Mask | None = field(default=None, compare=False)
    points: tuple[KeyPoint, ...] = ()
    point_names: tuple[str, ...] = ()
    has_box: bool = True
    regions: tuple[Mapping[str, Any], ...] = ()
    other_labels: tuple[str, ...] = ()

    def by_label(self) -> list[FileObject]:
        """The same object with each of its labels alone."""
        return [replace(self, label=label, other_labels=()) for label in (self.label, *self.other_labels)]


@dataclass(frozen=True)
class ObjectsRead:
    """The objects of one image, and a sentence for each odd line or entry, which is no object.

    `relations` counts those between objects, which aren't read.
    """

    found: list[FileObject]
    odd: list[str] = field(default_factory=list)
    relations: int = 0


@dataclass(frozen=True)
class Aside:
    """What a file says beside the labels of images: sentences about what is of none, and the classes that it lists."""

    odd: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image. `objects` needs the upright size (width, height), and how the file's pixels are turned.

    That is EXIF's number; 1 turns nothing. `size_wh` is the upright size if the file of labels has it.
    """

    where: str
    objects: Callable[[SizeWH, int], ObjectsRead]
    size_wh: SizeWH | None = None

    def boxes(self, size_wh: SizeWH, orientation: int = 1) -> list[FileObject]:
        """The objects of an image of this size."""
        return self.objects(size_wh, orientation).found


Entry = tuple[str, ImageLabels]
"""An image's name or path in a file of labels, and its labels."""


def read_each(readers: Iterable[Callable[[], FileObject | Sequence[FileObject]]]) -> ObjectsRead:
    """The objects that these make. One that raises LabelFileError is odd, and costs no other."""
    read = ObjectsRead([])
    for make in readers:
        try:
            made = make()
        except LabelFileError as error:
            read.odd.append(str(error))
        else:
            read.found.extend([made] if isinstance(made, FileObject) else made)
    return read


def box(label: str, box_xyxy: BoxXYXY, score: float | None, where: str) -> FileObject:
    """An upright box."""
    return FileObject(label, box_xyxy, score, where)


def rotated(label: str, box_xywhr: Box, score: float | None, where: str) -> FileObject:
    """A rotated box, of its center, size, and clockwise radians."""
    around = box_around(corners_of_box(box_xywhr))
    return FileObject(label, around, score, where, shape=ROTATED, box_xywhr=box_xywhr)


def quadrilateral(label: str, corners: Sequence[Point], score: float | None, where: str) -> FileObject:
    """A rotated box that is told by its corners; the smallest rectangle around them, as Ultralytics takes it."""
    (x, y), (width, height), degrees = cv2.minAreaRect(np.array(corners, np.float32))
    box_xywhr = (x, y, width, height, math.radians(degrees))
    return FileObject(
        label, box_around(corners), score, where, shape=ROTATED, box_xywhr=box_xywhr, outlines=(tuple(corners),)
    )


def polygon(label: str, outlines: Sequence[Sequence[Point]], score: float | None, where: str) -> FileObject:
    """A thing in one or several parts, each with three points at least. Raises LabelFileError for fewer."""
    if not outlines or min(map(len, outlines)) < 3:
        raise LabelFileError(f"{where}: a polygon has three points at least")
    parts = tuple(tuple(part) for part in outlines)
    around = box_around([point for part in parts for point in part])
    return FileObject(label, around, score, where, shape=POLYGON, outlines=parts)


def masked(label: str, mask: Mask, score: float | None, where: str) -> FileObject:
    """A thing by its pixels. Raises LabelFileError if it has none."""
    ys, xs = np.nonzero(mask.bitmap())
    if not len(xs):
        raise LabelFileError(f"{where}: the mask has no pixel")
    left, top = mask.window_xywh[:2]
    around = (left + int(xs.min()), top + int(ys.min()), left + int(xs.max()) + 1, top + int(ys.max()) + 1)
    return FileObject(label, tuple(map(float, around)), score, where, shape=MASK, mask=mask)  # type: ignore[arg-type]


def ellipse(label: str, box_xywhr: Box, score: float | None, where: str) -> FileObject:
    """The ellipse in this box."""
    around = box_around(_ellipse_outline(box_xywhr))
    return FileObject(label, around, score, where, shape=ELLIPSE, box_xywhr=box_xywhr)


def key_points(
    label: str,
    points: Sequence[KeyPoint],
    score: float | None,
    where: str,
    *,
    box_xyxy: BoxXYXY | None = None,
    names: Sequence[str] = (),
) -> FileObject:
    """Key points, each with its score or NaN where it isn't there, in a box if one is given.

    Raises LabelFileError if there is neither a point nor a box.
    """
    there = [(x, y) for x, y, point_score in points if not math.isnan(point_score)]
    if box_xyxy is None and not there:
        raise LabelFileError(f"{where}: none of its key points is there, and it has no box")
    around = box_xyxy or box_around(there)
    points = tuple(points)
    return FileObject(
        label, around, score, where, POINTS, points=points, point_names=tuple(names), has_box=box_xyxy is not None
    )


def box_around(points: Sequence[Point]) -> BoxXYXY:
    """The upright box around these points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def is_rectangle(thing: FileObject) -> bool:
    """Returns True if a rotated box that was drawn by its corners is the rectangle that is taken for it."""
    if thing.box_xywhr is None or not thing.outlines:
        return True
    corners = np.array(corners_of_box(thing.box_xywhr))
    drawn = np.array(thing.outlines[0])
    distances = np.linalg.norm(drawn[:, None] - corners[None], axis=2).min(axis=1)
    return bool(distances.max() <= _SAME_PX)


def turned(thing: FileObject, orientation: int, stored_wh: SizeWH) -> FileObject:
    """An object in pixels of the file as it lies, in those of the upright image. Masks aren't turned."""
    width, height = stored_wh
    turns: dict[int, Callable[[float, float], Point]] = {
        2: lambda x, y: (width - x, y),
        3: lambda x, y: (width - x, height - y),
        4: lambda x, y: (x, height - y),
        5: lambda x, y: (y, x),
        6: lambda x, y: (height - y, x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (y, width - x),
    }
    turn = turns.get(orientation)
    if turn is None:
        return thing
    left, top, right, bottom = thing.box_xyxy
    moved = replace(
        thing,
        box_xyxy=box_around([turn(left, top), turn(right, bottom)]),
        outlines=tuple(tuple(turn(*point) for point in part) for part in thing.outlines),
        points=tuple((*turn(x, y), score) for x, y, score in thing.points),
    )
    if thing.box_xywhr is None:
        return moved
    corners = [turn(*corner) for corner in corners_of_box(thing.box_xywhr)]
    as_drawn = quadrilateral(thing.label, corners, thing.score, thing.where)
    return replace(moved, box_xywhr=as_drawn.box_xywhr, box_xyxy=as_drawn.box_xyxy)


def detections_of(thing: FileObject, class_id: int, size_wh: SizeWH, *, with_masks: bool = True) -> Detections:
    """The object as what weights could have found, which every kind of control makes regions of."""
    is_turned = thing.shape == ROTATED or (thing.shape == ELLIPSE and bool(thing.box_xywhr and thing.box_xywhr[4]))
    boxes = np.array([thing.box_xywhr if is_turned else thing.box_xyxy], np.float32)
    extras: dict[str, NDArray[Any]] = {}
    if thing.points:
        points = np.array([thing.points], np.float32)
        extras = {"points_xy": points[..., :2], "point_scores": points[..., 2]}
    mask = _mask_of(thing, size_wh) if with_masks else None
    return Detections(
        boxes,
        np.array([thing.score or 0], np.float32),
        np.array([class_id], np.int64),
        rotated=is_turned,
        extras=extras,
        masks=None if mask is None else (mask,),
    )


def _mask_of(thing: FileObject, size_wh: SizeWH) -> Mask | None:
    if thing.shape == MASK:
        return thing.mask
    if thing.shape == ELLIPSE and thing.box_xywhr:
        return mask_of_outlines([_ellipse_outline(thing.box_xywhr)], size_wh)
    return mask_of_outlines(thing.outlines, size_wh) if thing.outlines else None


def mask_of_outlines(outlines: Sequence[Sequence[Point]], size_wh: SizeWH) -> Mask:
    """The pixels within any of these polygons, as far as they are on an image of this size; and the polygons."""
    drawn = tuple(np.array(part, np.float32) for part in outlines)
    masks = [mask_of(part.astype(np.float64), size_wh) for part in drawn]
    if len(masks) == 1:
        return replace(masks[0], polygons=drawn)
    low = np.min([mask.window_xywh[:2] for mask in masks], axis=0)
    high = np.max([np.add(mask.window_xywh[:2], mask.window_xywh[2:]) for mask in masks], axis=0)
    bitmap = np.zeros((high - low)[::-1], bool)
    for mask in masks:
        left, top, width, height = np.subtract(mask.window_xywh, (*low, 0, 0)).tolist()
        bitmap[top : top + height, left : left + width] |= mask.bitmap()
    return replace(Mask.of_bitmap(bitmap, (int(low[0]), int(low[1]))), polygons=drawn)


def _ellipse_outline(box_xywhr: Box) -> list[Point]:
    x, y, width, height, radians = box_xywhr
    cos, sin = math.cos(radians), math.sin(radians)
    angles = [number * 2 * math.pi / _ELLIPSE_POINTS for number in range(_ELLIPSE_POINTS)]
    around = [(width / 2 * math.cos(angle), height / 2 * math.sin(angle)) for angle in angles]
    return [(x + across * cos - down * sin, y + across * sin + down * cos) for across, down in around]


def of_image(
    where: str,
    readers: Sequence[Callable[[], FileObject | Sequence[FileObject]]],
    said_wh: SizeWH | None,
    *,
    is_as_it_lies: bool = False,
    may_be_as_it_lies: bool = False,
) -> ImageLabels:
    """Labels in pixels of an image for which the file gives this size. The image has to have it.

    With `is_as_it_lies`, it is the size before the image is turned upright, so the upright size isn't known. With
    `may_be_as_it_lies` the objects are turned if the size fits the file before it is turned, and no other.
    """

    def checked(size_wh: SizeWH, orientation: int) -> ObjectsRead:
        is_other = said_wh not in {None, size_wh}
        is_turned = is_other and said_wh == size_wh[::-1]
        if is_other and not (is_turned and (is_as_it_lies or (may_be_as_it_lies and orientation > 1))):
            raise wrong_size(where, said_wh or size_wh, size_wh)
        read = read_each(readers)
        if said_wh and is_turned and may_be_as_it_lies:
            return ObjectsRead([turned(thing, orientation, said_wh) for thing in read.found], read.odd)
        return read

    return ImageLabels(where, checked, None if is_as_it_lies else said_wh)


def wrong_size(where: str, said_wh: SizeWH, found_wh: SizeWH) -> LabelFileError:
    """The image's file has another size than its labels say."""
    said, found = (f"{width}x{height}" for width, height in (said_wh, found_wh))
    return LabelFileError(f"{where} is {said} there, but the image's file is {found} (turned upright)")
