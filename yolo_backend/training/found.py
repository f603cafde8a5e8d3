"""What a model found in the validation images, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask


@dataclass(frozen=True)
class FoundBoxes:
    """What a model found in one image, best score first, in pixels of the upright image.

    `boxes` is (n, 4) xyxy, or of weights for rotated boxes (n, 5) xywhr: center, size, clockwise radians. `scores` is
    (n,), and `labels` has an entry for each. Of segmentation weights there are n `masks`, in pixels of the image made
    as small as `masks_wh`. Of pose weights, `points_xy` is (n, points, 2), with NaN for points that they don't know.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: tuple[str, ...]
    masks: tuple[Mask, ...] | None = None
    masks_wh: tuple[int, int] = (0, 0)
    points_xy: NDArray[np.float64] | None = None

    @property
    def is_rotated(self) -> bool:
        return self.boxes.shape[1] == 5

    def at(self, indices: Sequence[int]) -> FoundBoxes:
        """Those of these indices, in their order."""
        return replace(
            self,
            boxes=self.boxes[indices],
            scores=self.scores[indices],
            labels=tuple(self.labels[index] for index in indices),
            masks=None if self.masks is None else tuple(self.masks[index] for index in indices),
            points_xy=None if self.points_xy is None else self.points_xy[indices],
        )

    def above(self, thresholds: dict[str, float]) -> FoundBoxes:
        """Those with a score above the threshold of their label; a label without one is left out."""
        kept = [
            index
            for index, (label, score) in enumerate(zip(self.labels, self.scores, strict=True))
            if score > thresholds.get(label, 1.0)
        ]
        return self.at(kept)

    def likeliest(self) -> FoundBoxes:
        """The one with the best score, if there is one."""
        return self.at([0] if self.labels else [])


@dataclass(frozen=True)
class Findings:
    """What a model found in a number of images, in their order, and the labels that it can find at all.

    With `is_single`, an image is said to be one thing only, which is the likeliest.
    """

    labels: frozenset[str]
    images: Sequence[FoundBoxes]
    is_single: bool = False

    @property
    def is_rotated(self) -> bool:
        return any(each.is_rotated for each in self.images)

    @property
    def shown(self) -> Sequence[FoundBoxes]:
        """What people would see of it, but for the thresholds."""
        return [each.likeliest() for each in self.images] if self.is_single else self.images

    def at(self, indices: Sequence[int]) -> Findings:
        """Those in the images of these indices."""
        return replace(self, images=[self.images[index] for index in indices])
