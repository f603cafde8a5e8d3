"""Weights that find boxes."""

from __future__ import annotations

from typing import Any, ClassVar

from yolo_backend.detection.heads.boxes import BoxHead
from yolo_backend.detection.heads.head import HeadOptions
from yolo_backend.detection.heads.suppression import suppress


class DetectHead(BoxHead):
    """Upright boxes and nothing else."""

    kind: ClassVar[str] = "detect"

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self._is_plain = options.is_on_cpu and not options.end2end

    def _suppress(self, candidates: Any, score_threshold: float) -> list[Any]:
        if not self._is_plain:
            return super()._suppress(candidates, score_threshold)
        iou_threshold, max_detections = self._options.iou_threshold, self._options.max_detections
        return [suppress(each, score_threshold, iou_threshold, max_detections) for each in candidates.numpy()]
