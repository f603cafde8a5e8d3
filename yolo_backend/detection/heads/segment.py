"""Weights that find boxes with masks. Masks are made where they are asked for; else they decide which boxes stay."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.utils import ops

from yolo_backend.detection.detections import Letterboxed
from yolo_backend.detection.heads.boxes import BoxHead
from yolo_backend.detection.heads.upscaling import MaskMaker
from yolo_backend.detection.masks import Mask
from yolo_backend.detection.weights import WeightsFileError

_PIXELS_AT_ONCE = 4_000_000  # of masks in the model's input, while it is seen which are empty


class SegmentHead(BoxHead):
    """The outputs hold mask prototypes, and a row ends with how much of each prototype is in the box's mask."""

    kind: ClassVar[str] = "segment"
    has_costly_boxes = True  # a large mask is made for each

    def check(self, raw: Any) -> None:
        """Raises WeightsFileError also if there are no prototypes."""
        if isinstance(raw, torch.Tensor):
            raise WeightsFileError(
                f"Weights {self._options.weights_name} answer no masks, as those of the task segment do: "
                "export them anew"
            )
        super().check(raw)

    def _candidates(self, raw: Any) -> Any:
        return raw[0]

    def _more_numbers(self, raw: Any) -> int | None:
        return int(_prototypes(raw).shape[1])

    def _kept(self, rows: Any, raw: Any, index: int, input_shape: tuple[int, ...]) -> Any:
        """Ultralytics drops a segment whose mask is empty, and its box with it."""
        if not len(rows):
            return rows
        prototypes = _prototypes(raw)[index]
        parts = rows.split(max(1, _PIXELS_AT_ONCE // (input_shape[0] * input_shape[1])))
        has_mask = [
            ops.process_mask(prototypes, part[:, 6:], part[:, :4], input_shape, upsample=True).amax((-2, -1)) > 0
            for part in parts
        ]
        return rows[torch.cat(has_mask)]

    def _masks(
        self, rows: NDArray[np.float32], boxes: NDArray[np.float32], raw: Any, index: int, image: Letterboxed
    ) -> tuple[Mask, ...]:
        """The masks in the image's own pixels. One that isn't empty in the model's may be so here, and stays."""
        size_wh = image.original_size_wh
        maker = MaskMaker(_prototypes(raw)[index], image.decoded_size_wh or size_wh, size_wh)
        return tuple(maker.make(row[6:], box) for row, box in zip(rows, boxes, strict=True))


def _prototypes(raw: Any) -> Any:
    return raw[0][1] if isinstance(raw[0], tuple) else raw[1]
