"""Label Studio's own export (JSON): what its controls hold, in percent of the upright image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from yolo_backend.detection.masks import Mask
from yolo_backend.labels.places import box_of_place
from yolo_backend.labels.rle import decode_rle
from yolo_backend.registering.finding import SHOWN_SUFFIXES, shown
from yolo_backend.registering.objects import (
    WHOLE,
    Aside,
    Entry,
    FileObject,
    LabelFileError,
    SizeWH,
    box,
    ellipse,
    key_points,
    masked,
    of_image,
    polygon,
    rotated,
)

_PLACES = {
    "rectangle": ("x", "y", "width", "height"),
    "ellipse": ("x", "y", "radiusX", "radiusY"),
    "polygon": ("points",),
    "brush": ("rle",),
    "keypoint": ("x", "y"),
}
"""By what a region's value is known as a shape. A key point has a width, too, but no height."""


def label_studio_entries(path: Path, content: Sequence[Any], aside: Aside) -> Iterator[Entry]:
    """The labels of each task's image: of its annotation, else of its prediction.

    Of several annotations it is the ground truth, else the first that wasn't skipped. Tasks that nobody labelled are
    left out.
    """
    for number, task in enumerate(content):
        said = task if isinstance(task, Mapping) else {}
        where = f"{path}: task {said.get('id', number)}"
        name = _image_of(said.get("data"))
        if name is None:
            aside.odd.append(f"{where} has no image in its data")
            continue
        result = _result_of(said)
        if result is None:
            continue
        things = _things(result)
        size_wh = next(filter(None, (_size_of(region) for region in result)), None)
        readers = [
            partial(_object, thing, size_wh, f"{where}: region {shown(str(thing[0].get('id', position)))}")
            for position, thing in enumerate(things)
        ]
        yield name, of_image(f"{where}: image {shown(name)}", readers, size_wh)


def is_task(said: Any) -> bool:
    """Returns True if this is one of Label Studio's tasks."""
    return isinstance(said, Mapping) and isinstance(said.get("data"), Mapping)


def _image_of(data: Any) -> str | None:
    if not isinstance(data, Mapping):
        return None
    texts = {str(key): value for key, value in data.items() if isinstance(value, str) and value}
    texts |= {
        str(key): value[0]
        for key, value in data.items()
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
    }
    named = [value for value in texts.values() if _suffix(value) in SHOWN_SUFFIXES | {".tif", ".tiff"}]
    return texts.get("image") or next(iter(named), None)


def _suffix(value: str) -> str:
    return PurePosixPath(value.partition("?d=")[2] or value.partition("?")[0]).suffix.lower()


def _result_of(task: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    annotations = [each for each in task.get("annotations") or () if isinstance(each, Mapping)]
    kept = [each for each in annotations if not each.get("was_cancelled")]
    kept = [each for each in kept if each.get("ground_truth")] or kept
    predictions = [each for each in task.get("predictions") or () if isinstance(each, Mapping)]
    for each in [*kept, *(() if annotations else predictions)]:
        result = each.get("result") or []
        return [region for region in result if isinstance(region, Mapping)] if isinstance(result, list) else []
    return None


def _things(result: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The regions of each thing: those of one id, such as a Rectangle's and its Labels'. Relations are left out."""
    things: dict[Any, list[Mapping[str, Any]]] = {}
    for number, region in enumerate(result):
        if region.get("type") != "relation":
            things.setdefault(str(region.get("id", number)), []).append(region)
    return list(things.values())


def _size_of(region: Mapping[str, Any]) -> SizeWH | None:
    width, height = region.get("original_width"), region.get("original_height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _object(thing: Sequence[Mapping[str, Any]], size_wh: SizeWH | None, where: str) -> FileObject:
    values = [value for region in thing if isinstance(value := region.get("value"), Mapping)]
    if len(values) < len(thing):
        raise LabelFileError(f"{where} has no value")
    label = next((label for region in thing for label in _labels_of(region)), "")
    score = next((float(region["score"]) for region in thing if isinstance(region.get("score"), int | float)), None)
    place = next((value for value in values if _kind_of(value)), None)
    if place is None or size_wh is None:
        return FileObject(label, (0, 0, 0, 0), score, where, shape=WHOLE, regions=tuple(thing))
    return replace(_shape(place, size_wh, where), label=label, score=score, regions=tuple(thing))


def _labels_of(region: Mapping[str, Any]) -> list[str]:
    """The region's labels: those under the name of its type that ends with `labels`."""
    kind = str(region.get("type"))
    labels = (region.get("value") or {}).get(kind) if kind.endswith("labels") else None
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _kind_of(value: Mapping[str, Any]) -> str | None:
    return next((kind for kind, keys in _PLACES.items() if all(key in value for key in keys)), None)


def _shape(value: Mapping[str, Any], size_wh: SizeWH, where: str) -> FileObject:
    """The shape, as an object without a label."""
    width, height = size_wh
    kind = _kind_of(value) or ""
    if kind == "brush":
        return masked("", _mask_of(value["rle"], size_wh, where), None, where)
    if kind == "polygon":
        points = value["points"] if isinstance(value["points"], list) else []
        pairs = [_numbers(point, where) for point in points if isinstance(point, list) and len(point) == 2]
        return polygon("", [[(x * width / 100, y * height / 100) for x, y in pairs]], None, where)
    numbers = _numbers([value[key] for key in _PLACES[kind]], where)
    (turn,) = _numbers([value.get("rotation") or 0], where)
    x, y = numbers[0] * width / 100, numbers[1] * height / 100
    if kind == "keypoint":
        return key_points("", [(x, y, 1.0)], None, where)
    if kind == "ellipse":
        sides = (numbers[2] * width / 50, numbers[3] * height / 50)
        return ellipse("", (x, y, *sides, math.radians(turn)), None, where)
    box_xywhr = box_of_place(value, size_wh)
    if turn and box_xywhr:
        return rotated("", box_xywhr, None, where)
    return box("", (x, y, x + numbers[2] * width / 100, y + numbers[3] * height / 100), None, where)


def _numbers(said: Sequence[Any], where: str) -> list[float]:
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in said):
        raise LabelFileError(f"{where}: its place should be in numbers")
    return [float(number) for number in said]


def _mask_of(rle: Any, size_wh: SizeWH, where: str) -> Mask:
    """The pixels that are at least half opaque."""
    try:
        return decode_rle(rle, size_wh)
    except (ValueError, TypeError) as error:
        raise LabelFileError(f"{where}: its brush can't be read: {error}") from None
