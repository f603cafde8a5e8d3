"""COCO's JSON: boxes, rotated boxes, polygons, masks (RLE) and key points; and the results of Ultralytics' `val`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveInt

from yolo_backend.detection.masks import Mask
from yolo_backend.registering.finding import shown
from yolo_backend.registering.formats.parsing import MAX_MASK_PX, Pixels, Score, pairs, parse, parse_each, xyxy_of
from yolo_backend.registering.formats.yolo import Classes
from yolo_backend.registering.objects import (
    MASK,
    MISSING_POINT,
    POINTS,
    Aside,
    BoxXYXY,
    Entry,
    FileObject,
    ImageLabels,
    KeyPoint,
    LabelFileError,
    ObjectsRead,
    Point,
    SizeWH,
    box,
    key_points,
    masked,
    of_image,
    polygon,
    quadrilateral,
    rotated,
)

# Of COCO's 91 numbers of classes, those without a class: models have the 80 others.
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
_COCO_NUMBERS = [number for number in range(1, 91) if number not in _COCO_GAPS]


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: PositiveInt | None = None
    height: PositiveInt | None = None


class _Category(BaseModel):
    id: int
    name: str
    keypoints: list[str] = Field(default_factory=list)


class _Rle(BaseModel):
    size: tuple[PositiveInt, PositiveInt]
    counts: str | list[int]


class _Annotation(BaseModel):
    id: int | str | None = None
    image_id: int | str
    category_id: int
    bbox: list[Pixels] = Field(default_factory=list)
    segmentation: _Rle | list[list[Pixels]] | list[Pixels] | None = None
    keypoints: list[Pixels] = Field(default_factory=list)
    attributes: dict[str, Any] = Field(default_factory=dict)
    score: Score | None = None


class _Coco(BaseModel):
    info: Any = None
    images: list[_Image]
    annotations: list[Any]
    categories: list[_Category]


class _Result(BaseModel):
    """What Ultralytics' `val` writes with `save_json`."""

    image_id: int | str
    category_id: int
    file_name: str | None = None
    bbox: list[Pixels] = Field(default_factory=list)
    rbox: list[Pixels] = Field(default_factory=list)
    poly: list[Pixels] = Field(default_factory=list)
    segmentation: _Rle | None = None
    keypoints: list[Pixels] = Field(default_factory=list)
    score: Score | None = None


def coco_entries(path: Path, content: Any, aside: Aside) -> Iterator[Entry]:
    """The labels of each image of a COCO file. Raises LabelFileError."""
    coco = parse(_Coco, content, str(path))
    categories = {category.id: category for category in coco.categories}
    aside.classes.extend(category.name for category in coco.categories)
    of_image_id: dict[int | str, list[tuple[str, Any]]] = {image.id: [] for image in coco.images}
    for number, annotation in enumerate(coco.annotations):
        said = annotation if isinstance(annotation, dict) else {}
        where = f"{path}: annotation {number if said.get('id') is None else said['id']}"
        image_id = said.get("image_id")
        if not isinstance(image_id, int | str):
            aside.odd.append(f"{where}: image_id: Field required")
        elif image_id not in of_image_id:
            aside.odd.append(f"{where} is of image {image_id}, which isn't among the images")
        else:
            of_image_id[image_id].append((where, said))
    # The file has the image's size before it is turned upright, but boxes of the upright image.
    is_label_studio = isinstance(coco.info, dict) and coco.info.get("contributor") == "Label Studio"
    for image in coco.images:
        size_wh = (image.width, image.height) if image.width and image.height else None
        where = f"{path}: image {shown(image.file_name)}"
        readers = [partial(_object, said, categories, at) for at, said in of_image_id[image.id]]
        labels = _of_image(where, readers, size_wh, is_as_it_lies=is_label_studio)
        if is_label_studio and size_wh:
            labels = _with_polygons_upright(labels, size_wh)
        yield image.file_name, labels


def result_entries(path: Path, content: Sequence[Any], classes: Classes, aside: Aside) -> Iterator[Entry]:
    """The labels of each image of Ultralytics' predictions.json, whose classes are numbers."""
    aside.classes.extend(classes.names.values())
    parsed: dict[str, list[tuple[str, _Result]]] = {}
    for where, result in parse_each(_Result, content, path, aside):
        name = PurePosixPath(result.file_name).stem if result.file_name else str(result.image_id)
        parsed.setdefault(name, []).append((where, result))
    number_of = _numbers_of_classes([result for each in parsed.values() for _, result in each], classes)
    for name, each in parsed.items():
        readers = [partial(_of_result, result, classes, number_of, where) for where, result in each]
        yield name, _of_image(f"{path}: image {shown(name)}", readers, None)


def decode_counts(counts: str | Sequence[int]) -> NDArray[np.int64]:
    """The lengths of the runs of a COCO RLE, which may be packed into a text. Raises ValueError."""
    if not isinstance(counts, str):
        return np.array(counts, np.int64)
    lengths: list[int] = []
    number = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is no part of a COCO RLE")
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        # From the fourth on, they are the difference from the one before the last.
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return np.array(lengths, np.int64)


def mask_of_rle(rle: Mapping[str, Any], where: str) -> Mask:
    """The mask of a COCO RLE: its runs go down the columns. Raises LabelFileError."""
    height, width = rle["size"]
    if width * height > MAX_MASK_PX:
        raise LabelFileError(f"{where}: segmentation: {width}x{height} are more than {MAX_MASK_PX:,} pixels")
    try:
        lengths = decode_counts(rle["counts"])
    except (ValueError, OverflowError) as error:
        raise LabelFileError(f"{where}: segmentation: {error}") from None
    if (lengths < 0).any() or (lengths > width * height).any() or lengths.sum() != width * height:
        raise LabelFileError(f"{where}: segmentation: its runs aren't those of {width}x{height} pixels")
    edges = np.cumsum(lengths)
    starts, ends = edges[: len(edges) // 2 * 2 : 2], edges[1::2]
    if not len(starts) or not (ends > starts).any():
        raise LabelFileError(f"{where}: the mask has no pixel")
    # Only the columns that it is in, because an image has many more.
    there = ends > starts
    first, last = int(starts[there][0] // height), int((ends[there][-1] - 1) // height) + 1
    inside = np.zeros((last - first) * height + 1, np.int8)
    np.add.at(inside, starts[there] - first * height, 1)
    np.add.at(inside, ends[there] - first * height, -1)
    bitmap = np.cumsum(inside[:-1], dtype=np.int8).astype(bool).reshape(last - first, height).T
    rows = np.flatnonzero(bitmap.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return Mask.of_bitmap(np.ascontiguousarray(bitmap[top:bottom]), (first, top))


def _of_image(
    where: str,
    readers: Sequence[Callable[[SizeWH], FileObject]],
    said_wh: SizeWH | None,
    *,
    is_as_it_lies: bool = False,
) -> ImageLabels:
    """Labels of an image. Its masks have to be of the size that the file gives, or of the image's own."""

    def objects(found_wh: SizeWH, orientation: int) -> ObjectsRead:
        sized = [partial(read, said_wh or found_wh) for read in readers]
        return of_image(where, sized, said_wh, is_as_it_lies=is_as_it_lies).objects(found_wh, orientation)

    return ImageLabels(where, objects, None if is_as_it_lies else said_wh)


def _object(said: Any, categories: Mapping[int, _Category], where: str, size_wh: SizeWH) -> FileObject:
    annotation = parse(_Annotation, said, where)
    if annotation.category_id not in categories:
        raise LabelFileError(f"{where} is of category {annotation.category_id}, which isn't among the categories")
    category = categories[annotation.category_id]
    label, score = category.name, annotation.score
    drawn = _drawn(annotation, label, size_wh, where)
    if any(annotation.keypoints):
        points = _points_of(annotation.keypoints, where)
        has_box = len(annotation.bbox) == 4 and annotation.bbox[2] > 0 and annotation.bbox[3] > 0
        # Label Studio's export has a made-up class for all points of an image, and no box.
        box_xyxy = _xyxy(annotation.bbox) if has_box else None
        thing = key_points(label, points, score, where, box_xyxy=box_xyxy, names=category.keypoints)
        return replace(thing, outlines=drawn.outlines, mask=drawn.mask) if drawn else thing
    if drawn and drawn.shape == MASK:
        return drawn
    degrees = annotation.attributes.get("rotation")
    is_turned = isinstance(degrees, int | float) and math.isfinite(degrees) and degrees % 360 != 0
    if len(annotation.bbox) == 4 and is_turned:  # as CVAT writes it: the box before it is turned clockwise
        x, y, width, height = annotation.bbox
        turn = math.radians(float(degrees or 0))
        return rotated(label, (x + width / 2, y + height / 2, width, height, turn), score, where)
    if len(annotation.bbox) == 5:  # as Detectron2 has it: center, size, degrees the other way round
        x, y, width, height, left_turn = annotation.bbox
        return rotated(label, (x, y, width, height, -math.radians(left_turn)), score, where)
    if drawn:
        return drawn
    if len(annotation.bbox) != 4:
        raise LabelFileError(f"{where}: bbox: Field required")
    return box(label, _xyxy(annotation.bbox), score, where)


def _drawn(annotation: _Annotation, label: str, size_wh: SizeWH, where: str) -> FileObject | None:
    """The mask or the polygon of an annotation; None where it has none, or one that only repeats its box."""
    segmentation, score = annotation.segmentation, annotation.score
    if isinstance(segmentation, _Rle):
        return masked(label, _mask_on(size_wh, segmentation, where), score, where)
    if not segmentation or segmentation == [[]]:
        return None
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    outlines = [pairs(part, f"{where}: segmentation") for part in parts]
    return None if _is_the_box(outlines, annotation.bbox) else polygon(label, outlines, score, where)


def _mask_on(size_wh: SizeWH, rle: _Rle, where: str) -> Mask:
    if rle.size != size_wh[::-1]:
        raise LabelFileError(f"{where}: segmentation: its size isn't that of the image")
    return mask_of_rle(rle.model_dump(), where)


def _of_result(
    result: _Result, classes: Classes, number_of: Mapping[int, int], where: str, size_wh: SizeWH
) -> FileObject:
    if result.category_id not in number_of:
        raise LabelFileError(
            f"{where}: category_id {result.category_id} isn't one of the {len(classes.names)} in {classes.path}"
        )
    number = number_of[result.category_id]
    label = classes.names[number]
    if len(result.rbox) == 5:
        x, y, width, height, radians = result.rbox
        return rotated(label, (x, y, width, height, radians), result.score, where)
    if len(result.poly) == 8:
        return quadrilateral(label, pairs(result.poly, where), result.score, where)
    if len(result.bbox) != 4:
        raise LabelFileError(f"{where}: bbox: Field required")
    if any(result.keypoints):
        points = _points_of(result.keypoints, where)
        names = (classes.point_names or {}).get(number, ())
        return key_points(label, points, result.score, where, box_xyxy=_xyxy(result.bbox), names=names)
    if result.segmentation:
        return masked(label, _mask_on(size_wh, result.segmentation, where), result.score, where)
    return box(label, _xyxy(result.bbox), result.score, where)


def _numbers_of_classes(results: Sequence[_Result], classes: Classes) -> dict[int, int]:
    """The number in `classes` of each `category_id`: Ultralytics counts from 1, or as COCO does, earlier from 0."""
    ids = {result.category_id for result in results}
    count = len(classes.names)
    numbers = sorted(classes.names)
    if count == len(_COCO_NUMBERS) and max(ids, default=0) > count and not ids & _COCO_GAPS:
        return dict(zip(_COCO_NUMBERS, numbers, strict=True))
    if 0 in ids:
        return dict(zip(range(count), numbers, strict=True))
    return dict(zip(range(1, count + 1), numbers, strict=True))


def _points_of(numbers: Sequence[float], where: str) -> list[KeyPoint]:
    """Key points of x, y and a visibility, of which 0 is a point that isn't there; a score as it is."""
    if len(numbers) % 3:
        raise LabelFileError(f"{where}: keypoints: {len(numbers)} numbers are no x, y and visibility each")
    points = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return [(x, y, min(seen, 1.0)) if seen > 0 else MISSING_POINT for x, y, seen in points]


def _xyxy(bbox: Sequence[float]) -> BoxXYXY:
    return xyxy_of(bbox[0], bbox[1], bbox[2], bbox[3])


def _is_the_box(outlines: Sequence[Sequence[Point]], bbox: Sequence[float]) -> bool:
    """Returns True if a polygon only repeats the box, as some programs write it."""
    if len(outlines) != 1 or len(bbox) != 4 or len(set(outlines[0])) != 4:
        return False
    left, top, right, bottom = _xyxy(bbox)
    corners = [(x, y) for x in (left, right) for y in (top, bottom)]
    return all(min(math.dist(point, corner) for corner in corners) < 0.01 for point in outlines[0])


def _with_polygons_upright(labels: ImageLabels, said_wh: SizeWH) -> ImageLabels:
    """Label Studio scales polygons, and nothing else, by the size of the file before it is turned."""

    def objects(size_wh: SizeWH, orientation: int) -> ObjectsRead:
        read = labels.objects(size_wh, orientation)
        across, down = (size / said for size, said in zip(size_wh, said_wh, strict=True))
        return ObjectsRead([_scaled(thing, across, down) for thing in read.found], read.odd)

    return ImageLabels(labels.where, objects, labels.size_wh)


def _scaled(thing: FileObject, across: float, down: float) -> FileObject:
    if not thing.outlines or (across, down) == (1, 1):
        return thing
    outlines = tuple(tuple((x * across, y * down) for x, y in part) for part in thing.outlines)
    if thing.shape == POINTS:
        return replace(thing, outlines=outlines)
    return polygon(thing.label, outlines, thing.score, thing.where)
