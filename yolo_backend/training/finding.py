"""What weights find in images, by the way that serves: the same letterbox, NMS and label map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from yolo_backend.detection.detections import Detections
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.views import WHOLE, show, view_for
from yolo_backend.errors import UserError
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.labels.label_map import LabelMap
from yolo_backend.parallel import in_parallel
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.mask_overlaps import grid_of
from yolo_backend.training.oks import with_points

SCORE_FLOOR = 0.01
"""Boxes with less are of no use: for the average precision, all others are looked at, whatever the thresholds."""

LabelsOfClass = Mapping[int, Sequence[str]]


class FindingError(UserError):
    """The images can't be looked at; the message says why."""


def labels_of_classes(label_maps: Iterable[LabelMap]) -> LabelsOfClass:
    """What each class becomes in the controls that are served by the same weights; once, if several say the same."""
    labels: dict[int, dict[str, None]] = {}
    for label_map in label_maps:
        for class_id, label in label_map.label_of_class.items():
            labels.setdefault(class_id, {})[label] = None
    return {class_id: tuple(those) for class_id, those in labels.items()}


def find_boxes(
    engine: Engine,
    images: Sequence[LabelledImage],
    labels_of_class: LabelsOfClass,
    *,
    max_megapixels: float,
    decode: Literal["full", "fast"] = "full",
    points: int = 0,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Findings:
    """What the weights find in each image, down to `SCORE_FLOOR`; `told` hears how many are done.

    As where it serves, a label that can't be drawn on an image isn't found there.
    Only the images that are in work are in memory. Raises FindingError for an image that can't be read, and what the
    engine raises. `decode` is the setting DECODE: images are decoded as they are where it serves. Of pose weights, each
    find has so many key `points`, whatever these weights have.
    """
    view = view_for(engine.info)
    enough_px = view.enough_px(engine.info) if decode == "fast" else None
    has_masks = engine.info.kind == "segment"

    def find(image: LabelledImage) -> FoundBoxes:
        try:
            # A PNG is a JPEG only here, where it was written to be trained on.
            smaller_px = enough_px if image.is_jpeg else None
            decoded = decode_image(image.file.read_bytes(), max_megapixels, smaller_px)
        except (OSError, ImageError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise FindingError(
                f"The image of task {image.task_id} can't be read from {image.file} ({why}): start the training anew"
            ) from None
        # As if the image were smaller: its masks take less time and memory so, and its boxes are the same.
        size_wh = grid_of(decoded.size_wh) if has_masks and view is WHOLE else decoded.size_wh
        shown = show(view, decoded.pixels, size_wh, engine.letterbox)
        shown = shown.asking_for_masks() if has_masks else shown
        # One by one, as an engine takes those of other shapes; the boxes are the same in any batch.
        detections = shown.merge([engine.detect([each], SCORE_FLOOR)[0] for each in shown.images])
        found = labelled(detections, _on_image(image, labels_of_class), points)
        if found.masks is None:
            return found
        return replace(found, boxes=found.boxes * np.tile(np.divide(decoded.size_wh, size_wh), 2), masks_wh=size_wh)

    found_in: dict[int, FoundBoxes] = {}
    numbered = enumerate(images)
    for done, ((number, _), found) in enumerate(
        in_parallel(lambda item: find(item[1]), numbered, engine.streams, "finding"), 1
    ):
        found_in[number] = found
        told(done, len(images))
    labels = frozenset(label for those in labels_of_class.values() for label in those)
    return Findings(labels, [found_in[number] for number in range(len(images))])


def _on_image(image: LabelledImage, labels_of_class: LabelsOfClass) -> LabelsOfClass:
    drawable = image.labels
    if drawable is None:
        return labels_of_class
    return {number: [label for label in those if label in drawable] for number, those in labels_of_class.items()}


def labelled(detections: Detections, labels_of_class: LabelsOfClass, points: int = 0) -> FoundBoxes:
    """Detections as boxes with labels; a class without a label is left out, one with two is found twice.

    Those of pose weights have so many key `points`: the first of theirs, and those that they don't know are NaN.
    """
    pairs = [
        (index, label)
        for index, class_id in enumerate(detections.class_ids.tolist())
        if np.isfinite(detections.boxes[index]).all()
        for label in labels_of_class.get(class_id, ())
    ]
    indices = [index for index, _ in pairs]
    points_xy = detections.extras.get("points_xy")
    return FoundBoxes(
        detections.boxes[indices].astype(np.float64),
        detections.scores[indices].astype(np.float64),
        tuple(label for _, label in pairs),
        masks=None if detections.masks is None else tuple(detections.masks[index] for index in indices),
        points_xy=None if points_xy is None else with_points(points_xy[indices], points),
    )
