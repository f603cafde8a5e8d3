"""Weights that find boxes with key points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from ultralytics.utils import ops

from yolo_backend.detection.detections import Letterboxed
from yolo_backend.detection.heads.boxes import BoxHead


class PoseHead(BoxHead):
    """A row ends with the box's key points: x, y and perhaps how visible each is.

    If a file doesn't say how many numbers a point has, only its boxes are read.
    """

    kind: ClassVar[str] = "pose"

    def _more_numbers(self, raw: Any) -> int | None:
        points = self._options.points_shape
        return points[0] * points[1] if points else None

    def _extras(
        self, rows: NDArray[np.float32], image: Letterboxed, input_shape: tuple[int, ...]
    ) -> Mapping[str, NDArray[Any]]:
        """The `points_xy` within the image, and their `point_scores`: 1 if the weights have none."""
        if self._options.points_shape is None:
            return {}
        points = rows[:, 6:].reshape(len(rows), *self._options.points_shape)
        width, height = image.decoded_size_wh or image.original_size_wh
        places = ops.scale_coords(input_shape, points[..., :2].copy(), (height, width))
        if (width, height) != image.original_size_wh:
            places *= np.divide(image.original_size_wh, (width, height)).astype(np.float32)
        scores = points[..., 2].copy() if points.shape[2] == 3 else np.ones(points.shape[:2], np.float32)
        return {"points_xy": places, "point_scores": scores}
