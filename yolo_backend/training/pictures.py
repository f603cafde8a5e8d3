"""The images that a classifier is fitted to: as Ultralytics reads and changes them, but no larger than it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from ultralytics.data import ClassificationDataset

from yolo_backend.training.class_folders import folder_names


class Pictures(ClassificationDataset):  # type: ignore[misc]
    """The images of one side, of a folder that `write_class_folders` wrote."""

    def __init__(self, folder: str, arguments: Any, *, is_trained_on: bool, classes: Sequence[str]) -> None:
        # Of an image that is trained on, a part is cut out, of this share of its area at least, and made so large.
        least_share = 1.0 - arguments.scale if is_trained_on else 1.0
        self._enough_px = math.ceil(arguments.imgsz / math.sqrt(least_share))
        super().__init__(
            folder,
            arguments,
            augment=is_trained_on,
            prefix="train" if is_trained_on else "val",
            names=folder_names(classes),
        )

    def imread(self, f: str) -> NDArray[np.uint8]:
        """An image as BGR, its shorter side no longer than is of use: so thousands of photographs fit into memory."""
        pixels: NDArray[np.uint8] = super().imread(f)
        height, width = pixels.shape[:2]
        factor = self._enough_px / min(height, width)
        if factor >= 1:
            return pixels
        size_wh = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
