"""Weights that find rotated boxes (OBB)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Letterboxed
from yolo_backend.detection.heads.boxes import BoxHead


class ObbHead(BoxHead):
    """A row ends with the box's angle, in clockwise radians, which becomes the fifth number of the box."""

    kind: ClassVar[str] = "obb"
    is_rotated = True

    def _more_numbers(self, raw: Any) -> int | None:
        return 1

    def _boxes(
        self, rows: NDArray[np.float32], image: Letterboxed, input_shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        return np.concatenate([super()._boxes(rows, image, input_shape), rows[:, -1:]], axis=1)
