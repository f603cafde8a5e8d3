"""What a model found in the validation images, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FoundBoxes:
    """What a model found in one image, best score first, in pixels of the upright image.

    `boxes` is (n, 4) xyxy, or of weights for rotated boxes (n, 5) xywhr: center, size, clockwise radians. `scores` is
    (n,), and `labels` has an entry for each. Of pose weights, `points_xy` is (n, points, 2), with NaN for points that
    they don't know.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: tuple[str, ...]
    points_xy: NDArray[np.float64] | None = None

    @property
    def is_rotated(self) -> bool:
        return self.boxes.shape[1] == 5

    def above(self, thresholds: dict[str, float]) -> FoundBoxes:
        """Those with a score above the threshold of their label; a label without one is left out."""
        kept = [
            index
            for index, (label, score) in enumerate(zip(self.labels, self.scores, strict=True))
            if score > thresholds.get(label, 1.0)
        ]
        return FoundBoxes(
            self.boxes[kept],
            self.scores[kept],
            tuple(self.labels[index] for index in kept),
            points_xy=None if self.points_xy is None else self.points_xy[kept],
        )


@dataclass(frozen=True)
class Findings:
    """What a model found in a number of images, in their order, and the labels that it can find at all."""

    labels: frozenset[str]
    images: Sequence[FoundBoxes]

    @property
    def is_rotated(self) -> bool:
        return any(each.is_rotated for each in self.images)

    def at(self, indices: Sequence[int]) -> Findings:
        """Those in the images of these indices."""
        return Findings(self.labels, [self.images[index] for index in indices])
