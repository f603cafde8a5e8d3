"""Makes of files of labels the predictions or annotations of tasks that are to be registered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yolo_backend.detection.detections import Detections
from yolo_backend.images.decode import upright_size
from yolo_backend.images.errors import ImageError
from yolo_backend.labels.control import Control
from yolo_backend.labels.label_map import LabelMap, map_labels
from yolo_backend.labels.regions import make_regions, task_score
from yolo_backend.protocol import Prediction, Region
from yolo_backend.registering.finding import FileOrAddress, shown
from yolo_backend.registering.items import Item
from yolo_backend.registering.label_files import FileBox, ImageLabels, LabelFileError, Labels, SizeWH

_BELOW_ANY_SCORE = -1.0


@dataclass(frozen=True)
class Labelled:
    """Items, some with labels; the boxes without area on their image; and of how many labels there is no image."""

    items: list[Item]
    without_area: list[FileBox]
    unused: int


@dataclass(frozen=True)
class _ImageWithLabels:
    """An image, and its labels if it has any."""

    image: FileOrAddress
    labels: ImageLabels | None
    size_wh: SizeWH = (0, 0)
    boxes: Sequence[FileBox] = ()


def add_labels(
    images: Sequence[FileOrAddress], labels: Labels, control: Control, model_version: str | None
) -> Labelled:
    """Items of these images with their labels: as predictions of this version, or as annotations if it is None.

    All is read and checked. If a box has no score, its region has none. Raises LabelFileError.
    """
    labels_of = labels.of(images)
    found = [_find(image, labels_of.get(image)) for image in images]
    if not labels_of:
        raise LabelFileError(
            f"{labels.path}: its {len(labels)} labels fit neither {shown(images[0])} nor another given image"
        )
    class_ids = {box.label: number for number, box in enumerate(box for item in found for box in item.boxes)}
    label_map = _map_all(class_ids, control, [box for item in found for box in item.boxes])
    items: list[Item] = []
    without_area: list[FileBox] = []
    for item in found:
        regions = [(box, _regions(box, class_ids[box.label], item.size_wh, control, label_map)) for box in item.boxes]
        without_area += [box for box, parts in regions if not parts]
        there = [part for _, parts in regions for part in parts]
        items.append(_item(item.image, there, model_version) if item.labels else Item(item.image))
    return Labelled(items, without_area, len(labels) - len(set(labels_of.values())))


def _find(image: FileOrAddress, labels: ImageLabels | None) -> _ImageWithLabels:
    if labels is None:
        return _ImageWithLabels(image, None)
    size_wh = _size_of(image) if isinstance(image, Path) else labels.size_wh
    if size_wh is None:
        raise LabelFileError(
            f"{labels.where}: the size of {shown(image)} isn't known: it has to be a file, or its size given"
        )
    return _ImageWithLabels(image, labels, size_wh, labels.boxes(size_wh))


def _size_of(file: Path) -> SizeWH:
    try:
        return upright_size(file.read_bytes())
    except OSError as error:
        raise LabelFileError(f"{file} can't be read: {error.strerror}") from None
    except ImageError as error:
        raise LabelFileError(f"The size of {file} can't be told: {error.told_of(file.name)}") from None


def _map_all(class_ids: dict[str, int], control: Control, boxes: Iterable[FileBox]) -> LabelMap:
    """The label of every class, whatever its threshold, because a file's boxes are all wanted."""
    label_map = map_labels(control, {number: label for label, number in class_ids.items()}, _BELOW_ANY_SCORE)
    if label_map.classes_without_label:
        unknown = next(box for box in boxes if box.label in label_map.classes_without_label)
        known = ", ".join(label.value for label in control.labels)
        raise LabelFileError(
            f'{unknown.where}: "{unknown.label}" is no label of "{control.from_name}", which has {known}'
        )
    return replace(label_map, threshold_of_class=dict.fromkeys(label_map.label_of_class, _BELOW_ANY_SCORE))


def _regions(box: FileBox, class_id: int, size_wh: SizeWH, control: Control, label_map: LabelMap) -> list[Region]:
    """The regions of a box; none if it has no area on its image."""
    detections = Detections(
        np.array([box.box_xyxy], np.float32), np.array([box.score or 0], np.float32), np.array([class_id], np.int64)
    )
    regions = make_regions(detections, control, label_map, size_wh, 0 if control.is_list else None)
    for region in regions:
        del region["score"]
        if box.score is not None:
            region["score"] = box.score
    return regions


def _item(image: FileOrAddress, regions: list[Region], model_version: str | None) -> Item:
    if model_version is None:
        return Item(image, annotations=[{"result": regions}])
    prediction: Prediction = {"result": regions, "model_version": model_version}
    if regions and all("score" in region for region in regions):
        prediction["score"] = task_score(regions)
    return Item(image, predictions=[prediction])
