"""`<PolygonLabels>` on an `<Image>`: of each mask the outline, with few points; of each rotated box the four sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.controls.kind import Found, Point, value_of
from yolo_backend.labels.controls.shapes import Shape, ShapeControl, ShapeLabels
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.outlines import MIN_IOU, Points, area_of, outlines_of, simplified, within_tolerance
from yolo_backend.labels.places import is_number, visible_corners
from yolo_backend.labels.tags import Tag
from yolo_backend.messages import shortened

_DIGITS = 4  # of percent: less than a hundredth of a pixel
_MAX_TOLERANCE_PX = 1000.0
_PARTS = ("largest", "all")


@dataclass(frozen=True)
class PolygonControl(ShapeControl):
    """Outlines with few points, or within `tolerance_px` of all the others.

    With `all_parts` each part of a mask has one, otherwise the largest.
    """

    tolerance_px: float | None = None
    all_parts: bool = False
    tag: str = field(kw_only=True, default="polygonlabels")


class PolygonLabels(ShapeLabels[PolygonControl]):
    """Reads `<PolygonLabels>`."""

    tags = frozenset({"polygonlabels"})
    region_types = frozenset({"polygonlabels"})
    shape = "polygon"
    control_type = PolygonControl

    def read_options(self, tag: Tag, attributes: Mapping[str, str]) -> dict[str, Any]:
        """`model_polygon_tolerance` in the image's pixels, and `model_parts`. Raises LabelingConfigError."""
        parts = str(attributes.get("model_parts") or "largest").strip().lower()
        if parts not in _PARTS:
            raise LabelingConfigError(f'model_parts="{shortened(parts, 20)}" of {tag.shown} should be largest or all')
        return {"tolerance_px": _tolerance_of(tag, attributes), "all_parts": parts == "all"}

    def check_weights(self, control: PolygonControl, weights: WeightsInfo, name: str) -> None:
        """Only masks and rotated boxes have an outline that is more than an upright box."""
        if weights.kind not in {"segment", "obb"}:
            raise LabelingConfigError(
                f'The control "{shortened(control.from_name, 40)}" draws polygons, which want segmentation '
                f"or OBB weights, and {name} are {weights.kind} weights: name others in MODEL_NAME, or in "
                "model_path, or write RectangleLabels"
            )

    def trained_with(self, control: PolygonControl) -> frozenset[str]:
        """Masks, which learn from outlines."""
        return frozenset({"segment"})

    def wants_masks(self, control: PolygonControl, weights: WeightsInfo) -> bool:
        """Of segmentation weights."""
        return weights.kind == "segment"

    def shapes(self, control: PolygonControl, found: Found) -> list[list[Shape]]:
        """Of each mask one polygon, or one for each part; of a find without a mask the corners of its box."""
        masks = found.detections.masks
        if masks is None:
            boxes = visible_corners(found.detections, found.indices, found.size_wh)
            return [_shapes([np.array(corners)] if corners else [], found.size_wh) for corners in boxes]
        return [_shapes_of(masks[index], control, found.size_wh) for index in found.indices]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """The line through its points."""
        points = value_of(region).get("points")
        if not isinstance(points, list) or len(points) < 2 or not all(map(_is_point, points)):
            return []
        width, height = size_wh
        return [[(x / 100 * width, y / 100 * height) for x, y in points]]

    def options(self, control: PolygonControl) -> dict[str, Any]:
        """Those that aren't as they are by default."""
        return {
            **({} if control.tolerance_px is None else {"tolerance_px": control.tolerance_px}),
            **({"parts": "all"} if control.all_parts else {}),
        }


def _shapes_of(mask: Mask, control: PolygonControl, size_wh: tuple[int, int]) -> list[Shape]:
    if mask.polygons:  # somebody drew it so
        drawn = [polygon.astype(np.float64).clip(0, size_wh) for polygon in mask.polygons]
        parts = sorted((part for part in drawn if len(part) >= 3 and area_of(part) > 0), key=area_of, reverse=True)
        kept = parts if control.all_parts else parts[:1]
        return _shapes(kept, size_wh)
    parts = outlines_of(mask)
    kept = parts if control.all_parts else parts[:1]
    reduced = [
        simplified(part) if control.tolerance_px is None else within_tolerance(part, control.tolerance_px)
        for part in kept
    ]
    return _shapes(reduced, size_wh, _remark(mask, parts, len(kept)))


def _remark(mask: Mask, parts: Sequence[Points], kept: int) -> str | None:
    """What of the mask the polygons don't have, if it is more than simplifying them may change."""
    areas = [area_of(part) for part in parts]
    holes_px, left_out_px = sum(areas) - mask.area_px, sum(areas[kept:])
    limit_px = (1 - MIN_IOU) * mask.area_px
    told = []
    if holes_px > limit_px:
        told.append(f"holes of {_share(holes_px, mask)} of the mask are filled, because a polygon has none")
    if left_out_px > limit_px:
        told.append(
            f'smaller parts, {_share(left_out_px, mask)} of the mask, are left out: model_parts="all" draws them'
        )
    return "; ".join(told) or None


def _share(area_px: float, mask: Mask) -> str:
    return f"{area_px / mask.area_px:.0%}"


def _shapes(parts: Sequence[Points], size_wh: tuple[int, int], remark: str | None = None) -> list[Shape]:
    """The remark stands on the first."""
    return [
        Shape({"points": _percent(part, size_wh), "closed": True}, None if number else remark)
        for number, part in enumerate(parts)
    ]


def _percent(points: Points, size_wh: tuple[int, int]) -> list[list[float]]:
    percent: list[list[float]] = (points / size_wh * 100).clip(0, 100).round(_DIGITS).tolist()
    return percent


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_number, point))


def _tolerance_of(tag: Tag, attributes: Mapping[str, str]) -> float | None:
    text = attributes.get("model_polygon_tolerance")
    if not text:
        return None
    try:
        tolerance_px = float(text)
    except ValueError:
        tolerance_px = -1.0
    if not 0 <= tolerance_px <= _MAX_TOLERANCE_PX:
        raise LabelingConfigError(
            f'model_polygon_tolerance="{shortened(text, 20)}" of {tag.shown} should be a number of pixels from 0 to '
            f"{_MAX_TOLERANCE_PX:.0f}"
        )
    return tolerance_px
