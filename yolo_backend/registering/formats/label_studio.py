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
    ImageLabels,
    LabelFileError,
    ObjectsRead,
    SizeWH,
    box,
    ellipse,
    key_points,
    masked,
    polygon,
    read_each,
    rotated,
    wrong_size,
)

_ThingAndPlace = tuple[list[Mapping[str, Any]], str]
"""The regions of one thing, and where they are in the file."""

_RELATION = "relation"
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
        images = _images_of(said.get("data"))
        if not images:
            aside.odd.append(f"{where} has no image in its data")
            continue
        result = _result_of(said)
        if result is None:
            continue
        things = [
            (thing, f"{where}: region {shown(str(thing[0].get('id', position)))}")
            for position, thing in enumerate(_things(result))
        ]
        relations = sum(region.get("type") == _RELATION for region in result)
        yield images[0][1], _labels_of_first(images, things, f"{where}: image {shown(images[0][1])}", relations)


def is_task(said: Any) -> bool:
    """Returns True if this is one of Label Studio's tasks."""
    return isinstance(said, Mapping) and isinstance(said.get("data"), Mapping)


def _images_of(data: Any) -> list[tuple[str, str]]:
    """The key and the address of each image in a task's data. The first is the one that labels are taken of."""
    if not isinstance(data, Mapping):
        return []
    texts = {str(key): value for key, value in data.items() if isinstance(value, str) and value}
    texts |= {
        str(key): value[0]
        for key, value in data.items()
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
    }
    images = [(key, value) for key, value in texts.items() if _suffix(value) in SHOWN_SUFFIXES | {".tif", ".tiff"}]
    if first := texts.get("image"):
        return [("image", first), *(each for each in images if each[0] != "image")]
    return images


def _labels_of_first(
    images: Sequence[tuple[str, str]], things: Sequence[_ThingAndPlace], where: str, relations: int
) -> ImageLabels:
    """The labels of the first of a task's images. Regions of another image, or of another size, are odd.

    A region says the name of its tag, which mostly is the image's key in the data, too. Where it isn't, the size of the
    image tells which of the tags is meant.
    """
    keys = [key for key, _ in images]
    tags = dict.fromkeys(tag for thing, _ in things if (tag := _tag_of(thing)) in keys or _size_of_thing(thing))
    own = list(tags)
    if len(images) > 1:
        own = [keys[0]] if keys[0] in tags else [tag for tag in tags if tag not in keys]
    candidates = [each for each in things if (tag := _tag_of(each[0])) in own or tag not in tags]
    is_doubtful = len(images) > 1 and len(own) > 1
    sizes = dict.fromkeys(size_wh for thing, _ in candidates if (size_wh := _size_of_thing(thing)))
    size_wh = next(iter(sizes), None)

    def objects(found_wh: SizeWH, _orientation: int) -> ObjectsRead:
        if sizes and found_wh not in sizes:
            raise wrong_size(where, size_wh or found_wh, found_wh)
        fitting = {_tag_of(thing) for thing, _ in candidates if _size_of_thing(thing) == found_wh}

        def why_odd(thing: Sequence[Mapping[str, Any]]) -> str | None:
            tag = _tag_of(thing)
            if tag in tags and tag not in (fitting if is_doubtful else own):
                return f" is of another image of the task ({tag})"
            if tag in tags and is_doubtful and len(fitting) > 1:
                return f": which image of the task it is of can't be told: its tag is {tag}, not {keys[0]}"
            return " is of an image of another size" if _size_of_thing(thing) not in {None, found_wh} else None

        why = [(thing, at, why_odd(thing)) for thing, at in things]
        read = read_each(partial(_object, thing, found_wh if sizes else None, at) for thing, at, odd in why if not odd)
        return ObjectsRead(read.found, [*(at + odd for _, at, odd in why if odd), *read.odd], relations)

    return ImageLabels(where, objects, None if is_doubtful and len(sizes) > 1 else size_wh)


def _tag_of(thing: Sequence[Mapping[str, Any]]) -> str:
    return str(thing[0].get("to_name"))


def _size_of_thing(thing: Sequence[Mapping[str, Any]]) -> SizeWH | None:
    return next(filter(None, map(_size_of, thing)), None)


def _suffix(value: str) -> str:
    return PurePosixPath(value.partition("?d=")[2] or value.partition("?")[0]).suffix.lower()


def _result_of(task: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    annotations = _mappings(task.get("annotations"))
    kept = [each for each in annotations if not each.get("was_cancelled")]
    kept = [each for each in kept if each.get("ground_truth")] or kept
    predictions = _mappings(task.get("predictions"))
    for each in [*kept, *(() if annotations else predictions)]:
        return _mappings(each.get("result"))
    return None


def _mappings(said: Any) -> list[Mapping[str, Any]]:
    return [each for each in said if isinstance(each, Mapping)] if isinstance(said, list) else []


def _things(result: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The regions of each thing: those of one id, such as a Rectangle's and its Labels'. Relations are left out."""
    things: dict[Any, list[Mapping[str, Any]]] = {}
    for number, region in enumerate(result):
        if region.get("type") != _RELATION:
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
    label, *others = dict.fromkeys(label for region in thing for label in _labels_of(region)) or [""]
    score = next((float(region["score"]) for region in thing if isinstance(region.get("score"), int | float)), None)
    place = next((value for value in values if _kind_of(value)), None)
    if place is None or size_wh is None:
        return FileObject(label, (0, 0, 0, 0), score, where, shape=WHOLE, regions=tuple(thing))
    shape = _shape(place, size_wh, where)
    return replace(shape, label=label, other_labels=tuple(others), score=score, regions=tuple(thing))


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
