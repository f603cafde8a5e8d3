"""`<BrushLabels>` on an `<Image>`: each mask, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.controls.kind import Found, Point, value_of
from yolo_backend.labels.controls.shapes import Shape, ShapeControl, ShapeLabels
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.outlines import mask_of, outlines_of
from yolo_backend.labels.places import visible_corners
from yolo_backend.labels.rle import decode_rle, encode_rle
from yolo_backend.messages import shortened

_MAX_DRAWN_PX = 300_000_000


@dataclass(frozen=True)
class BrushControl(ShapeControl):
    """A control of masks."""

    tag: str = field(kw_only=True, default="brushlabels")


class BrushLabels(ShapeLabels[BrushControl]):
    """Reads `<BrushLabels>`."""

    tags = frozenset({"brushlabels"})
    region_types = frozenset({"brushlabels"})
    shape = "brush"
    control_type = BrushControl

    def check_weights(self, control: BrushControl, weights: WeightsInfo, name: str) -> None:
        """Only segmentation weights find masks."""
        if weights.kind != "segment":
            raise LabelingConfigError(
                f'The control "{shortened(control.from_name, 40)}" paints masks, which want segmentation '
                f"weights, and {name} are {weights.kind} weights: name others in MODEL_NAME, or in model_path, or "
                "write RectangleLabels"
            )

    def trained_with(self, control: BrushControl) -> frozenset[str]:
        """Masks."""
        return frozenset({"segment"})

    def wants_masks(self, control: BrushControl, weights: WeightsInfo) -> bool:
        """Always."""
        return True

    def shapes(self, control: BrushControl, found: Found) -> list[list[Shape]]:
        """Each mask; of a find without one its box, filled."""
        masks = found.detections.masks
        if masks is None:
            boxes = visible_corners(found.detections, found.indices, found.size_wh)
            of_each = [mask_of(np.array(corners), found.size_wh) if corners else None for corners in boxes]
        else:
            of_each = [masks[index] for index in found.indices]
        return [[_shape(mask, found.size_wh)] if mask and mask.area_px else [] for mask in of_each]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """The outlines of its parts."""
        rle = value_of(region).get("rle")
        original_wh = region.get("original_width"), region.get("original_height")
        width, height = (size if type(size) is int and size > 0 else 0 for size in original_wh)
        if not isinstance(rle, list) or not 0 < width * height <= _MAX_DRAWN_PX:
            return []
        try:
            parts = outlines_of(decode_rle(rle, (width, height)))
        except ValueError:
            return []
        return [[(x, y) for x, y in (part / (width, height) * size_wh).tolist()] for part in parts]


def _shape(mask: Mask, size_wh: tuple[int, int]) -> Shape:
    return Shape({"format": "rle", "rle": encode_rle(mask, size_wh)})
