"""The plain data that goes into a detector and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """The boxes of one image in its own pixels, best score first.

    `boxes` is (n, 4) float32 xyxy, or with `rotated` (n, 5) xywhr: center, size, clockwise radians. `scores` and
    `class_ids` are (n,).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    rotated: bool = False

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class WeightsInfo:
    """What there is to know of weights without a model in memory; they are known by their `fingerprint`.

    `image_size` is (height, width). `remark` is what its user should know of the file, `has_nms` whether NMS is part of
    it.
    """

    name: str
    task: str
    class_names: Mapping[int, str]
    fingerprint: str
    image_size: tuple[int, int]
    remark: str | None = None
    has_nms: bool = False


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

    `decoded_size_wh` is the size that was letterboxed, where that was less than the image's own.
    """

    pixels: NDArray[np.uint8]
    original_size_wh: tuple[int, int]
    decoded_size_wh: tuple[int, int] | None = None
