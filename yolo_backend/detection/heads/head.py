"""What a head is: it knows one kind of weights, what they are shown and what their raw outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections, Letterboxed


@dataclass(frozen=True)
class HeadOptions:
    """What a head has to know of a model and of the settings.

    `image_size` is (height, width); with `shape_is_free`, images are padded to multiples of `stride` only. `end2end`
    outputs need no NMS. The outputs are tensors on the CPU if `is_on_cpu`. `points_shape` is how many key points a box
    has, and how many numbers each of them, if that is known.
    """

    weights_name: str
    class_count: int
    end2end: bool
    is_on_cpu: bool
    image_size: tuple[int, int]
    stride: int
    shape_is_free: bool
    iou_threshold: float
    max_detections: int
    points_shape: tuple[int, int] | None = None


class Head(Protocol):
    """One kind of weights. `kind` is the name that the file has for it; Ultralytics calls it the task.

    With `has_costly_boxes`, each box takes so much time that no more are asked for than are wanted.
    """

    kind: ClassVar[str]
    has_costly_boxes: ClassVar[bool]

    def __init__(self, options: HeadOptions) -> None: ...

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale and pad an RGB image (height, width, 3) to what the model takes. Any number of threads may call it."""

    def check(self, raw: Any) -> None:
        """Raises WeightsFileError if these raw outputs can't be those of weights of this kind.

        If outputs are read in the wrong way, no image has any detections.
        """

    def read(self, raw: Any, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        """What was found in each image of a batch with a score above the threshold, in the image's own pixels."""

    @classmethod
    def differences(cls, ours: Any, theirs: Any, class_count: int, *, end2end: bool) -> tuple[float, float]:
        """How far two models' raw outputs for the same images are apart: in pixels, and in score.

        Raises ValueError if their shapes differ.
        """
