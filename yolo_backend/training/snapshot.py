"""All submitted work of a project at one moment: images on the disk with the boxes that people want to see."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
from blake3 import blake3

from yolo_backend.addresses import redact
from yolo_backend.errors import UserError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.label_studio.errors import explain
from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.keypoints import KeyPointControl
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.regions import region_labels
from yolo_backend.labels.task_values import find_value
from yolo_backend.messages import shortened
from yolo_backend.parallel import in_parallel
from yolo_backend.protocol import Task
from yolo_backend.serving.task import TaskFile
from yolo_backend.training.annotations import (
    NO_IMAGE,
    Drawn,
    Region,
    changed_at,
    counting_annotation,
    labels_of,
    read_drawn,
    regions_by_image,
)
from yolo_backend.training.chosen import (
    ANY_PAGE,
    NO_CHOICE,
    NO_PAGE,
    OF_SEVERAL,
    choices_by_image,
    for_one_model,
    of_several_images,
    read_chosen,
    rivals,
)
from yolo_backend.training.image_cache import CachedImage, ImageCache
from yolo_backend.training.labelled import LabelledBox, LabelledImage, Snapshot
from yolo_backend.training.learnt import learnt_labels
from yolo_backend.training.other_shapes import ONLY_OTHER_SHAPE, OTHER_SHAPE, things_in_other_shapes
from yolo_backend.training.poses import read_poses
from yolo_backend.training.remarks import Used, on_images, on_late_labels, on_other_images, on_things
from yolo_backend.training.things import Things, things_of

LoadImages = Callable[[Task, Sequence[Control]], Iterable[TaskFile]]
"""`Predictor.files` of one project."""

_LABELLED = task_filter("total_annotations", "greater", 0, "Number")  # cancelled ones don't count
# Label Studio leaves fields that aren't named out of a task's annotations, too.
_FIELDS = ("data", "annotations", "result", "was_cancelled", "ground_truth", "updated_at")
_THREADS = 4
_LEARNT_FROM = {
    "detect": "RectangleLabels",
    "obb": "RectangleLabels",
    "segment": "PolygonLabels and BrushLabels",
    "pose": "KeyPointLabels with a model_index",
    "classify": "Choices and Taxonomy",
}
_NONE_OF = 50  # if so many images can't be had, and no other one was, there is no use in asking for the rest
_MIN_IMAGE_PX = 10  # on each side; Ultralytics leaves out smaller ones


class SnapshotError(UserError):
    """There is nothing to train on, or Label Studio is away; the message says what to do."""


@dataclass
class _Reading:
    """What one task gave. `faults`, `point_faults` and `image_faults` say of boxes, key points and images why they
    aren't trained on; `unread` are those of images that can't be had, or read.
    """

    images: list[LabelledImage] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # that came with the task
    used: Used | None = None
    faults: list[str] = field(default_factory=list)
    point_faults: list[str] = field(default_factory=list)
    image_faults: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    is_of_another: bool = False
    has_group: bool = False


def take_snapshot(
    project: Project,
    load: LoadImages,
    cache: ImageCache,
    group_field: str | None,
    told: Callable[[int, int], None],
    *,
    kind: str,
) -> Snapshot:
    """Read the project's submitted work that weights of this kind learn from; `told` hears how many of how many tasks
    are done.

    `group_field` is a field of the tasks' data whose values keep images together. Raises LabelingConfigError,
    SnapshotError, StudioError and ImageCacheError: what is wrong with one image is a remark.
    """
    controls = trained_controls(project.label_config, kind)
    reader = _Reader(controls, load, cache, group_field, kind)
    readings: dict[int, _Reading] = {}
    any_read, unread = False, list[str]()
    try:
        total = project.count([_LABELLED])
        told(0, total)
        for task, reading in in_parallel(reader.read, project.tasks([_LABELLED], fields=_FIELDS), _THREADS, "snapshot"):
            readings[int(task["id"])] = reading
            any_read = any_read or bool(reading.images)
            unread += reading.unread
            if len(unread) >= _NONE_OF and not any_read:
                break
            told(len(readings), max(total, len(readings)))
    except requests.Timeout as error:
        raise SnapshotError(f"{explain(error)}: begin the training again when it does") from None
    if unread and not any_read:
        raise SnapshotError(
            f"None of {len(unread):,} labelled images can be read. Of the first: {unread[0]}. Begin the training again "
            "when they can"
        )
    cache.make_room()
    if group_field is not None and readings and not any(reading.has_group for reading in readings.values()):
        raise SnapshotError(
            f'No labelled task has a field "{shortened(group_field)}" in its data, by which images are to be kept '
            'together: name another one (--group-by), or none (--group-by "")'
        )
    ordered = [readings[task_id] for task_id in sorted(readings)]
    labels = [label.value for control in controls for label in learnt_labels(control)]
    labels += [label for reading in ordered for label in reading.labels]
    return Snapshot(
        tuple(image for reading in ordered for image in reading.images),
        tuple(dict.fromkeys(labels)),
        tuple(_remarks(readings, things_of(kind))),
    )


def trained_controls(label_config: str, kind: str) -> list[Control]:
    """The controls that weights of this kind are trained for, which name no weights of their own.

    Raises SnapshotError if there are none, and LabelingConfigError.
    """
    controls = parse_labeling_config(label_config).controls
    trainable = [control for control in controls if kind in kind_of(control).trained_with(control)]
    if not trainable:
        others = sorted({other for control in controls for other in kind_of(control).trained_with(control)})
        raise SnapshotError(
            f"The base are {kind} weights, which learn from {_LEARNT_FROM[kind]}, and the labeling config has no such "
            "control: "
            + (
                f"name {' or '.join(others)} weights (--base, or MODEL_NAME), which learn from what it has"
                if others
                else "add one"
            )
        )
    without_weights = [control for control in trainable if not control.model_path]
    if not without_weights:
        raise SnapshotError(
            "Each control of the labeling config from which such a model could learn has weights of its own "
            "(model_path), so there is nothing to train: remove model_path from one of them"
        )
    return _of_one_model(without_weights) if kind == "classify" else without_weights


def _of_one_model(controls: Sequence[Control]) -> list[Control]:
    """Those that a classifier can learn together, because it says one thing of an image. Raises SnapshotError."""
    learnt = for_one_model(controls)
    if both := rivals(learnt):
        names = " and ".join(f'"{shortened(control.from_name, 40)}"' for control in both)
        raise SnapshotError(
            f"A classifier says one thing of an image, and {names} both ask for one: write "
            'model_skip="true" into those in which people are to choose by themselves, or give them weights of their '
            "own (model_path)"
        )
    return learnt


def _remarks(readings: Mapping[int, _Reading], things: Things) -> Iterator[str]:
    in_order = sorted(readings.items())
    yield from on_images([(task_id, fault) for task_id, reading in in_order for fault in reading.image_faults])
    faults = [(task_id, fault) for task_id, reading in in_order for fault in reading.faults]
    yield from on_things(faults, things.one, things.several)
    point_faults = [(task_id, fault) for task_id, reading in in_order for fault in reading.point_faults]
    yield from on_things(point_faults, "key point", "key points")
    yield from on_other_images([task_id for task_id, reading in in_order if reading.is_of_another], things)
    yield from on_late_labels([reading.used for _, reading in in_order if reading.used])


def manifest_rows(images: Iterable[LabelledImage]) -> list[dict[str, Any]]:
    """What a run was made from, image by image: by it, the same can be made again, or be told from another."""
    return [
        {
            "task": image.task_id,
            "annotation": image.annotation_id,
            "page": image.page,
            "image": image.digest,
            "labels": _digest_of_labels(image),
        }
        for image in images
    ]


def _digest_of_labels(image: LabelledImage) -> str:
    boxes = sorted(
        [
            box.label,
            *(round(number, 3) for number in (*box.box_xywhr, *_numbers_of_points(box))),
            *(round(number, 3) for line in box.outlines for point in line for number in point),
        ]
        for box in image.boxes
    )
    return blake3(json.dumps(boxes).encode()).hexdigest()


def _numbers_of_points(box: LabelledBox) -> Iterator[float]:
    """Each point's number, x and y."""
    for number, point in enumerate(box.points):
        if point:
            yield from (number, *point)


@dataclass(frozen=True)
class _Reader:
    """Reads tasks, in several threads at once."""

    controls: Sequence[Control]
    load: LoadImages
    cache: ImageCache
    group_field: str | None
    kind: str

    def read(self, task: Task) -> _Reading:
        """The task's images with their boxes; none where all its annotations were cancelled."""
        reading = _Reading()
        annotation = counting_annotation(task)
        if annotation is None:
            return reading
        data = task["data"]
        reading.labels = [
            label for control in self.controls if control.labels_value for label in labels_of(control, data)
        ]
        is_chosen, controls = self.kind == "classify", self.controls
        if is_chosen:
            controls = [control for control in self.controls if not of_several_images(control, data)]
            of_several = {control.value: of_several_images(control, data) for control in self.controls}
            reading.image_faults = [OF_SEVERAL] * sum(of_several.values())
            regions = choices_by_image(annotation, controls, data)
        else:
            regions = regions_by_image(annotation, controls, self.kind)
        in_others = things_in_other_shapes(annotation, controls, self.kind, data)
        group = self._group_of(data)
        reading.has_group = group is not None
        try:
            for file in self.load(task, controls) if controls else ():
                key_of = [(name, file.item_index or 0) for name in sorted(file.to_names)]
                mine = [pair for key in key_of for pair in regions.pop(key, ())]
                if is_chosen and not mine:
                    reading.image_faults.append(NO_CHOICE)
                    continue
                learnt = {label for region, _ in mine for label in region_labels(region)}
                others = [thing for key in key_of for thing in in_others.get(key, ())]
                if not learnt.issuperset(thing.label for thing in others):  # without its image in the cache
                    reading.image_faults.append(ONLY_OTHER_SHAPE.format(self.kind, _LEARNT_FROM[self.kind]))
                    continue
                try:
                    digest, cached, drawn = self._read_file(file, data, mine)
                except ImageError as error:
                    reading.unread.append(error.told_of(redact(file.address)))
                    continue
                if not all(thing.is_among(drawn.boxes, cached.size_wh) for thing in others):
                    reading.image_faults.append(ONLY_OTHER_SHAPE.format(self.kind, _LEARNT_FROM[self.kind]))
                    continue
                reading.faults += [*drawn.faults, *(OTHER_SHAPE.format(self.kind) for _ in others)]
                if is_chosen and not drawn.boxes:
                    continue
                reading.point_faults += drawn.point_faults
                reading.is_of_another |= drawn.is_of_another
                reading.images.append(
                    LabelledImage(
                        task_id=int(task["id"]),
                        annotation_id=int(annotation["id"]),
                        address=redact(file.address),
                        digest=digest,
                        look=cached.look,
                        file=cached.file,
                        size_wh=cached.size_wh,
                        is_jpeg=cached.is_of_jpeg,
                        boxes=drawn.boxes,
                        page=file.item_index,
                        group=group,
                        labels=self._drawable_on(file.to_names),
                    )
                )
        except ImageError as error:
            reading.unread.append(str(error))
        else:
            reading.faults += [
                NO_PAGE if page == ANY_PAGE else NO_IMAGE for (_, page), left in regions.items() for _ in left
            ]
        reading.image_faults += reading.unread
        if reading.images:
            labels = frozenset(box.label for image in reading.images for box in image.boxes)
            reading.used = Used(changed_at(annotation), labels)
        return reading

    def _read_file(
        self, file: TaskFile, data: Any, regions: Sequence[tuple[Region, Control]]
    ) -> tuple[str, CachedImage, Drawn]:
        """The digest of an image, the image, and what is drawn on it. Raises ImageError, ImageCacheError."""
        if isinstance(file.content, ImageError):
            raise file.content
        digest = blake3(file.content).hexdigest()
        cached = self.cache.take(digest, file.content)
        if min(cached.size_wh) < _MIN_IMAGE_PX:
            raise ImageError(FailureKind.BROKEN, f"the image has fewer than {_MIN_IMAGE_PX} pixels on a side")
        of_points = [(region, control) for region, control in regions if isinstance(control, KeyPointControl)]
        if self.kind == "classify":
            drawn = read_chosen(regions, data, cached.size_wh)
        elif of_points:
            drawn = read_poses(of_points, cached.size_wh)
        else:
            drawn = read_drawn(regions, data, cached.size_wh)
        if drawn.is_turned:  # without these boxes it would be one of which people say that they aren't there
            raise ImageError(
                FailureKind.WRONG_TYPE,
                "it was turned on the page when it was labelled (rotateControl), which isn't read: turn it back there",
            )
        return digest, cached, drawn

    def _drawable_on(self, to_names: frozenset[str]) -> frozenset[str] | None:
        """The labels of the controls of these `<Image>` tags; None for all, or where tasks bring them."""
        mine = [control for control in self.controls if control.to_name in to_names]
        if any(control.labels_value is not None for control in mine):
            return None
        labels = frozenset(label.value for control in mine for label in learnt_labels(control))
        everything = {label.value for control in self.controls for label in learnt_labels(control)}
        return None if labels == everything else labels

    def _group_of(self, data: Any) -> str | None:
        found = find_value(data, "$" + self.group_field.removeprefix("$")) if self.group_field else None
        return None if found is None else found if isinstance(found, str) else json.dumps(found, sort_keys=True)
