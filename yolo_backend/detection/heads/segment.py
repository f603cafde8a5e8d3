"""Weights that find boxes with masks; the masks only decide which boxes stay, and aren't used otherwise yet."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from ultralytics.utils import ops

from yolo_backend.detection.heads.boxes import BoxHead
from yolo_backend.detection.weights import WeightsFileError


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
        masks = ops.process_mask(_prototypes(raw)[index], rows[:, 6:], rows[:, :4], input_shape, upsample=True)
        return rows[masks.amax((-2, -1)) > 0]


def _prototypes(raw: Any) -> Any:
    return raw[0][1] if isinstance(raw[0], tuple) else raw[1]
