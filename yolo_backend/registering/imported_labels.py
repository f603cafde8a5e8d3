"""Makes of files of labels the predictions or annotations of tasks that are to be registered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from yolo_backend.images.decode import size_and_orientation
from yolo_backend.images.errors import ImageError
from yolo_backend.labels.control import Control
from yolo_backend.labels.regions import make_regions, task_score
from yolo_backend.protocol import Prediction, Region
from yolo_backend.registering.finding import FileOrAddress, readable, shown
from yolo_backend.registering.items import Item
from yolo_backend.registering.label_files import Labels
from yolo_backend.registering.objects import (
    ROTATED,
    WHOLE,
    FileObject,
    ImageLabels,
    LabelFileError,
    ObjectsRead,
    SizeWH,
    detections_of,
)
from yolo_backend.registering.routes import OwnRegions, Route, Routes, left_out, lost_on_the_way
from yolo_backend.registering.unfit import Unfit, has_pixels

_NO_LABELS = "images have no labels, because none of theirs can be registered"
_TURNED = (
    "objects are left out: their image was turned on the page when they were drawn (rotateControl), which isn't read: "
    "turn it back there, and export them again"
)
_RIGHT_ANGLE, _SMALL_ANGLE = 90, 0.1  # degrees


@dataclass(frozen=True)
class Labelled:
    """Items, some with labels; the objects without area on their image; and of how many labels there is no image.

    `odd` are sentences about lines and entries that are no object. `lost` names the files with labels that aren't
    registered, each with the reason.
    """

    items: list[Item]
    without_area: list[FileObject]
    unused: int
    odd: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def told(self) -> Counter[str]:
        """Of how many objects of all items something is lost, and what."""
        return told_of(self.items)


@dataclass(frozen=True)
class _ImageWithLabels:
    """An image, and its labels if it has any."""

    image: FileOrAddress
    labels: ImageLabels | None
    size_wh: SizeWH = (0, 0)
    read: ObjectsRead = field(default_factory=lambda: ObjectsRead([]))


def add_labels(
    images: Sequence[FileOrAddress],
    labels: Labels,
    control: Control,
    model_version: str | None,
    *,
    others: Sequence[Control] = (),
    label_config: str = "",
    originals: Mapping[FileOrAddress, FileOrAddress] | None = None,
    unfit: Unfit | None = None,
) -> Labelled:
    """Items of these images with their labels: as predictions of this version, or as annotations if it is None.

    All is read and checked. An object becomes regions of that one of the controls that holds it best. What Label Studio
    exported is taken as it is where the `label_config` has the same controls. If an object has no score, its regions
    have none. Labels know an image by the name of its original. The labels of `unfit` files, which aren't registered,
    are lost. Raises LabelFileError, also if nothing can be read.
    """
    original_of = {image: (originals or {}).get(image, image) for image in images}
    labels_of = labels.of(original_of.values())
    why_unfit = {file: why for why, files in (unfit or {}).items() for file in files}
    lost_of = labels.of_others(why_unfit, labels_of.values())
    lost = [f"{readable(file)}: {why}" for file, why in why_unfit.items() if file in lost_of]
    if not labels_of:
        where = f"{labels.path}: its {len(labels)} labels fit neither {shown(images[0])} nor another given image"
        raise LabelFileError(f"{where} that can be registered" if lost else where)
    found = [_find(image, labels_of.get(original_of[image])) for image in images]
    odd = [*labels.odd, *(sentence for item in found for sentence in item.read.odd)]
    if odd and not any(item.read.found for item in found):
        raise LabelFileError(odd[0] + (f" (and {len(odd) - 1:,} more that can't be read)" if len(odd) > 1 else ""))
    things = [thing for item in found for thing in item.read.found]
    maker = _Maker((control, *others), label_config, things, labels.classes)
    items = [maker.item(item, model_version) for item in found]
    if things and not maker.has_made:
        raise LabelFileError(f"{labels.path}: none of its objects can be registered: {maker.why_none(items)}")
    unused = len(labels) - len({*labels_of.values(), *lost_of.values()})
    return Labelled(items, maker.without_area, unused, odd, lost)


def told_of(items: Iterable[Item]) -> Counter[str]:
    """Of how many objects of these items something is lost, and what."""
    told: Counter[str] = Counter()
    for item in items:
        told.update(item.told)
        told.update(item.lost)
    return told


class _Maker:
    """Makes regions of objects, and keeps what is to be told of the item that it makes."""

    def __init__(
        self, controls: Sequence[Control], label_config: str, things: Sequence[FileObject], classes: Sequence[str]
    ) -> None:
        self.without_area: list[FileObject] = []
        self.has_made = False
        self._told: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        own = OwnRegions(label_config)
        self._own = {id(thing): regions for thing in things if (regions := own.take(thing)) is not None}
        routed = [each for thing in things if id(thing) not in self._own for each in thing.by_label()]
        self._routes = Routes(controls, routed, classes)

    def why_none(self, items: Iterable[Item]) -> str:
        """Why no object of these items has become a region."""
        if count := len(self.without_area):
            return (
                f"{count:,} {'has' if count == 1 else 'have'} no area on {'its' if count == 1 else 'their'} image "
                f"({self.without_area[0].where}): check whether the labels are of these images, and of their sizes"
            )
        return next(sentence for item in items for sentence in item.lost if sentence != _NO_LABELS)

    def item(self, item: _ImageWithLabels, model_version: str | None) -> Item:
        """The image with its labels; without any where all of them are lost: empty ones say that nothing is there."""
        if item.labels is None:
            return Item(item.image)
        self._told, self._lost = Counter(), Counter()
        regions = [region for thing in item.read.found for region in self._of(thing, item.size_wh)]
        self.has_made |= bool(regions)
        if item.read.relations:
            self._lost["relations between regions are left out"] = item.read.relations
        if not regions and (item.read.found or item.read.odd):
            self._lost[_NO_LABELS] += 1
            return Item(item.image, told=self._told, lost=self._lost)
        return replace(_item(item.image, regions, model_version), told=self._told, lost=self._lost)

    def _of(self, thing: FileObject, size_wh: SizeWH) -> list[Region]:
        if (own := self._own.get(id(thing))) is not None:
            return own
        if thing.shape != WHOLE and any(region.get("image_rotation") for region in thing.regions):
            self._lost[_TURNED] += 1
            return []
        regions = [region for each in thing.by_label() for region in self._of_label(each, size_wh)]
        if regions and thing.other_labels:
            self._told["objects with several labels became one for each label"] += 1
        return regions

    def _of_label(self, thing: FileObject, size_wh: SizeWH) -> list[Region]:
        ways = self._routes.ways(thing)
        if not ways:
            self._lost[left_out(thing)] += 1
            return []
        made: list[Region] = []
        lost: Counter[str] = Counter()
        for way in ways:
            regions = self._make(way, size_wh)
            lost += lost_on_the_way(way, regions)
            made += regions
        self._lost += lost
        if made:
            self._told.update({way.told for way in ways if way.told})
        elif not lost:
            self.without_area.append(thing)
        return made

    def _make(self, way: Route, size_wh: SizeWH) -> list[Region]:
        control, thing = way.control, way.thing
        detections = detections_of(thing, self._routes.class_ids[thing.label], size_wh)
        regions = make_regions(
            detections, control, self._routes.map_of(control, thing), size_wh, 0 if control.is_list else None
        )
        if thing.shape == ROTATED and regions and _is_no_longer_rotated(thing, regions[0]):
            self._told["rotated boxes became the boxes around them, because all their corners are off the image"] += 1
        for region in regions:
            if thing.score is None:
                region.pop("score", None)
            elif region.get("score") == detections.scores[0]:
                region["score"] = thing.score  # with all its digits; key points have scores of their own
        return regions


def _is_no_longer_rotated(thing: FileObject, region: Region) -> bool:
    value = region["value"]
    degrees = np.degrees(thing.box_xywhr[4]) % _RIGHT_ANGLE if thing.box_xywhr else 0.0
    is_turned = min(degrees, _RIGHT_ANGLE - degrees) > _SMALL_ANGLE
    return is_turned and value.get("rotation") == 0 and "width" in value


def _find(image: FileOrAddress, labels: ImageLabels | None) -> _ImageWithLabels:
    if labels is None:
        return _ImageWithLabels(image, None)
    size_wh, orientation = _size_of(image) if isinstance(image, Path) and has_pixels(image) else (labels.size_wh, 1)
    try:
        read = _read(labels, image, size_wh, orientation)
    except LabelFileError as error:  # one file of labels costs no other
        read = ObjectsRead([], [str(error)])
    return _ImageWithLabels(image, labels, size_wh or (0, 0), read)


def _read(labels: ImageLabels, image: FileOrAddress, size_wh: SizeWH | None, orientation: int) -> ObjectsRead:
    if size_wh is None:
        raise LabelFileError(
            f"{labels.where}: the size of {shown(image)} isn't known: it has to be a file, or its size given"
        )
    return labels.objects(size_wh, orientation)


def _size_of(file: Path) -> tuple[SizeWH, int]:
    try:
        return size_and_orientation(file.read_bytes())
    except OSError as error:
        raise LabelFileError(f"{file} can't be read: {error.strerror}") from None
    except ImageError as error:
        raise LabelFileError(f"The size of {file} can't be told: {error.told_of(file.name)}") from None


def _item(image: FileOrAddress, regions: list[Region], model_version: str | None) -> Item:
    if model_version is None:
        return Item(image, annotations=[{"result": regions}])
    prediction: Prediction = {"result": regions, "model_version": model_version}
    if regions and all("score" in region for region in regions):
        prediction["score"] = task_score(regions)
    return Item(image, predictions=[prediction])
