"""Weights that find boxes with key points; the points aren't used yet."""

from __future__ import annotations

from typing import Any, ClassVar

from yolo_backend.detection.heads.boxes import BoxHead


class PoseHead(BoxHead):
    """A row ends with the box's key points, as many numbers as the weights were trained with."""

    kind: ClassVar[str] = "pose"

    def _more_numbers(self, raw: Any) -> int | None:
        return None
