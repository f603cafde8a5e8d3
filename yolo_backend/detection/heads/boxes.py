"""What all kinds of weights that find boxes have in common; each kind's own file says what is different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision  # noqa: F401  Ultralytics uses torchvision's NMS only if this is imported
from numpy.typing import NDArray
from ultralytics.data.augment import LetterBox
from ultralytics.utils import nms, ops

from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.detection.heads.head import HeadOptions
from yolo_backend.detection.heads.layout import layout_problem, numbers_problem
from yolo_backend.detection.masks import Mask
from yolo_backend.detection.weights import WeightsFileError


class BoxHead:
    """Reads boxes, and leaves to a subclass what its kind has beside them.

    A row is a box, its score and its class, and then the numbers of its kind.
    """

    kind: ClassVar[str]
    has_costly_boxes: ClassVar[bool] = False
    is_rotated: ClassVar[bool] = False

    def __init__(self, options: HeadOptions) -> None:
        self._options = options
        self._letterbox = LetterBox(options.image_size, auto=options.shape_is_free, stride=options.stride)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Letterbox an image; the shape follows from the image alone."""
        return np.ascontiguousarray(self._letterbox(image=image))

    def check(self, raw: Any) -> None:
        """Raises WeightsFileError if the outputs have the shape or the numbers of something else."""
        name, classes, end2end = self._options.weights_name, self._options.class_count, self._options.end2end
        outputs = first(self._candidates(raw))
        shape = tuple(outputs.shape)
        if problem := layout_problem(shape, classes, self._more_numbers(raw), end2end=end2end):
            raise WeightsFileError(f"Weights {name} answer numbers of the shape {shape}: {problem}")
        if problem := numbers_problem(outputs, classes, end2end=end2end):
            raise WeightsFileError(f"Weights {name} answer {problem}")

    def read(self, raw: Any, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        """What was found in each image of a batch."""
        rows_of_each = self._suppress(self._candidates(raw), score_threshold)
        if len(rows_of_each) != len(batch):
            raise RuntimeError(f"the model gave {len(rows_of_each)} outputs for {len(batch)} images")
        input_shape = batch[0].pixels.shape[:2]
        return [
            self._detections(self._kept(rows, raw, index, input_shape), raw, index, image, input_shape)
            for index, (rows, image) in enumerate(zip(rows_of_each, batch, strict=True))
        ]

    @classmethod
    def differences(cls, ours: Any, theirs: Any, class_count: int, *, end2end: bool) -> tuple[float, float]:
        """How far the boxes and the scores of two models are apart. Of other outputs, only the shape counts."""
        ours, theirs = _numbers(ours), _numbers(theirs)
        if ours.shape != theirs.shape:
            raise ValueError(f"the export gives {tuple(ours.shape)}, the weights {tuple(theirs.shape)}")
        if end2end:  # rows are ordered by score, which may differ if scores are nearly equal
            return 0.0, distance(ours[..., 4], theirs[..., 4])
        scores = slice(4, 4 + class_count)
        return distance(ours[:, :4], theirs[:, :4]), distance(ours[:, scores], theirs[:, scores])

    def _candidates(self, raw: Any) -> Any:
        """The part of the raw outputs for NMS: a tensor, or several of which it is the first."""
        return first(raw)

    def _more_numbers(self, raw: Any) -> int | None:
        """How many numbers a candidate has after its box and its scores; None if at least one."""
        return 0

    def _suppress(self, candidates: Any, score_threshold: float) -> list[Any]:
        """The rows of each image that NMS keeps."""
        return list(
            nms.non_max_suppression(
                candidates,
                score_threshold,
                self._options.iou_threshold,
                max_det=self._options.max_detections,
                nc=self._options.class_count,
                end2end=self._options.end2end,
                rotated=self.is_rotated,
                # Past its time limit Ultralytics leaves the rest of the batch empty.
                max_time_img=float("inf"),
            )
        )

    def _kept(self, rows: Any, raw: Any, index: int, input_shape: tuple[int, ...]) -> Any:
        """The rows of the batch's image with this index that Ultralytics would keep."""
        return rows

    def _extras(
        self, rows: NDArray[np.float32], image: Letterboxed, input_shape: tuple[int, ...]
    ) -> Mapping[str, NDArray[Any]]:
        """What these rows say besides boxes, scores and classes, by name, for `Detections.extras`."""
        return {}

    def _masks(
        self, rows: NDArray[np.float32], boxes: NDArray[np.float32], raw: Any, index: int, image: Letterboxed
    ) -> tuple[Mask, ...] | None:
        """The masks of these rows, whose `boxes` are in the image's own pixels; None if this kind finds none."""
        return None

    def _detections(
        self, rows: Any, raw: Any, index: int, image: Letterboxed, input_shape: tuple[int, ...]
    ) -> Detections:
        if isinstance(rows, torch.Tensor):
            rows = rows.float().cpu().numpy()
        boxes = self._boxes(rows, image, input_shape)
        return Detections(
            boxes,
            scores=rows[:, 4].copy(),
            class_ids=rows[:, 5].astype(np.int64),
            rotated=self.is_rotated,
            extras=self._extras(rows, image, input_shape),
            masks=self._masks(rows, boxes, raw, index, image) if image.wants_masks else None,
        )

    def _boxes(
        self, rows: NDArray[np.float32], image: Letterboxed, input_shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """The boxes of these rows in the image's own pixels."""
        width, height = image.decoded_size_wh or image.original_size_wh
        boxes: NDArray[np.float32] = ops.scale_boxes(
            input_shape, rows[:, :4].copy(), (height, width), xywh=self.is_rotated
        )
        if (width, height) != image.original_size_wh:
            boxes *= np.tile(np.divide(image.original_size_wh, (width, height)), 2).astype(np.float32)
        return boxes


def first(outputs: Any) -> Any:
    """The first of several outputs, or the only one."""
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _numbers(outputs: Any) -> torch.Tensor:
    """The boxes among the outputs, whatever else comes with them."""
    while not isinstance(outputs, torch.Tensor):
        outputs = outputs[0]
    return outputs.float().cpu()


def distance(ones: torch.Tensor, others: torch.Tensor) -> float:
    """The largest difference between two numbers at the same place."""
    return float((ones - others).abs().max())
