"""The plain data that goes into a detector and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask


@dataclass(frozen=True)
class Detections:
    """What was found in one image, in the image's own pixels, best score first.

    `boxes` is (n, 4) float32 xyxy, or with `rotated` (n, 5) xywhr: center, size, clockwise radians. `scores` and
    `class_ids` are (n,). `extras` holds by name what weights of this kind find beside boxes, such as key points: arrays
    whose first axis is n. One whose name ends with `_xy` is of places: x and y are its last axis. `masks` are n; None
    where none were asked for, or the weights find none.

    Pose weights find `points_xy` (n, points, 2) and `point_scores` (n, points), float32. What classification weights
    say of an image is a box around all of it for each class.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    rotated: bool = False
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    masks: tuple[Mask, ...] | None = None

    def __post_init__(self) -> None:
        if self.masks is not None and len(self.masks) != len(self):
            raise ValueError(f"there are {len(self.masks)} masks for {len(self)} boxes")
        for name, values in self.extras.items():
            if values.dtype.hasobject or values.shape[:1] != (len(self),):
                raise ValueError(
                    f"{name} are {values.dtype} of the shape {values.shape}: expected numbers, {len(self)} times"
                )

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, indices: Sequence[int] | NDArray[np.int64]) -> Detections:
        """Those of these indices, in their order."""
        return replace(
            self,
            boxes=self.boxes[indices],
            scores=self.scores[indices],
            class_ids=self.class_ids[indices],
            extras={name: values[indices] for name, values in self.extras.items()},
            masks=None if self.masks is None else tuple(self.masks[index] for index in indices),
        )

    def moved(self, offset_xy: tuple[int, int]) -> Detections:
        """The same, so many pixels further right and down."""
        if offset_xy == (0, 0):
            return self
        boxes = self.boxes.copy()
        boxes[:, :2] += offset_xy
        if not self.rotated:
            boxes[:, 2:4] += offset_xy
        extras = {
            name: values + np.array(offset_xy, values.dtype) if name.endswith("_xy") else values
            for name, values in self.extras.items()
        }
        masks = None if self.masks is None else tuple(mask.moved(offset_xy) for mask in self.masks)
        return replace(self, boxes=boxes, extras=extras, masks=masks)


def joined(found: Sequence[Detections]) -> Detections:
    """All of these as one, best score first. They are of the same weights, so they have the same extras."""
    if len(found) == 1:
        return found[0]
    together = Detections(
        np.concatenate([each.boxes for each in found]),
        np.concatenate([each.scores for each in found]),
        np.concatenate([each.class_ids for each in found]),
        found[0].rotated,
        {name: np.concatenate([each.extras[name] for each in found]) for name in found[0].extras},
        None if found[0].masks is None else tuple(mask for each in found for mask in each.masks or ()),
    )
    return together.at(np.argsort(-together.scores, kind="stable"))


@dataclass(frozen=True)
class WeightsInfo:
    """What there is to know of weights without a model in memory; they are known by their `fingerprint`.

    `kind` names the head that reads them, and `image_size` is (height, width). `remark` is what its user should know of
    the file, `has_nms` whether NMS is part of it. With `has_costly_boxes`, no more boxes are asked for than are wanted.
    `thresholds` are those that a trained file holds, by class name. Pose weights find `points` key points in a box.
    """

    name: str
    kind: str
    class_names: Mapping[int, str]
    fingerprint: str
    image_size: tuple[int, int]
    remark: str | None = None
    has_nms: bool = False
    has_costly_boxes: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    points: int = 0

    @property
    def finds_places(self) -> bool:
        """Returns True if they say where in an image something is, and not only what the whole of it is."""
        return self.kind != "classify"


@dataclass(frozen=True)
class Runtime:
    """Where a model runs: on a `device` such as cpu or cuda:0, in an `engine` such as torch or onnx.

    `images_at_once` go through it at its best rate. `fallback` says why it isn't in the runtime that was wished for.
    """

    device: str
    engine: str
    images_at_once: int = 1
    fallback: str | None = None


@dataclass(frozen=True)
class Letterboxed:
    """An image as the model sees it: RGB uint8 (height, width, 3), and the size it had.

    `decoded_size_wh` is the size that was letterboxed, where that was less than the image's own. With `wants_masks`,
    masks are made of what is found in it, if the weights find any.
    """

    pixels: NDArray[np.uint8]
    original_size_wh: tuple[int, int]
    decoded_size_wh: tuple[int, int] | None = None
    wants_masks: bool = False
