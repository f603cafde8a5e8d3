"""Boxes found against boxes there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_backend.labels.polygons import Boxes, iou_matrix


@dataclass(frozen=True)
class Match:
    """How the boxes found in an image fit those that are there; `ious` are those of the matched pairs."""

    found: int
    there: int
    ious: tuple[float, ...]

    @property
    def mean_iou(self) -> float:
        """The mean IoU of the matched pairs, 0.0 without any."""
        return float(np.mean(self.ious)) if self.ious else 0.0


def match_boxes(
    found_xyxy: Boxes,
    found_labels: list[str],
    there_xyxy: Boxes,
    there_labels: list[str],
    min_iou: float = 0.5,
) -> Match:
    """Pair each box found, in the order given, with the best free box of its label."""
    overlaps = iou_matrix(found_xyxy, there_xyxy)
    same_label = np.array(found_labels)[:, None] == np.array(there_labels)[None, :]
    overlaps = np.where(same_label, overlaps, 0.0) if overlaps.size else overlaps
    ious = []
    for row in range(len(found_xyxy)):
        if overlaps.shape[1] == 0:
            break
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= min_iou:
            ious.append(float(overlaps[row, best]))
            overlaps[:, best] = 0.0
    return Match(len(found_xyxy), len(there_xyxy), tuple(ious))


def region_box_xyxy(region: dict[str, Any]) -> tuple[float, float, float, float]:
    """The upright box of a rectangle region in pixels."""
    value, width, height = region["value"], region["original_width"], region["original_height"]
    left, top = value["x"] / 100 * width, value["y"] / 100 * height
    return left, top, left + value["width"] / 100 * width, top + value["height"] / 100 * height
