"""The backend that people write first, as the baseline of the speed benchmark: a task at a time, by Ultralytics' own
`predict` in torch, behind the same HTTP server.

Run as a script, it serves as `yolo-backend serve` does, with the same flags.
"""

from __future__ import annotations

import io
import sys
from functools import cache
from typing import Any

import requests
from label_studio_ml.model import LabelStudioMLBase
from PIL import Image
from ultralytics import YOLO

from yolo_backend.detection.weights import find_weights
from yolo_backend.server.startup import serve
from yolo_backend.settings import load_settings

_TIMEOUT_S = 30


class HandwrittenBackend(LabelStudioMLBase):  # type: ignore[misc]  # label-studio-ml has no types
    """Serves a labeling config of one `RectangleLabels`, whose labels are the weights' classes."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any) -> None:
        super().__init__(label_config=label_config, **kwargs)

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """One prediction for each task."""
        return [self._predict(task["data"]["image"]) for task in tasks]

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        """Nothing is trained."""

    def _predict(self, url: str) -> dict[str, Any]:
        content = requests.get(url, timeout=_TIMEOUT_S).content
        image = Image.open(io.BytesIO(content))
        yolo, options = _model()
        (found,) = yolo.predict(image, verbose=False, **options)
        boxes = zip(found.boxes.xyxyn.tolist(), found.boxes.conf.tolist(), found.boxes.cls.tolist(), strict=True)
        regions = [
            {
                "from_name": "label",
                "to_name": "image",
                "type": "rectanglelabels",
                "original_width": image.width,
                "original_height": image.height,
                "value": {
                    "x": left * 100,
                    "y": top * 100,
                    "width": (right - left) * 100,
                    "height": (bottom - top) * 100,
                    "rotation": 0,
                    "rectanglelabels": [found.names[int(class_id)]],
                },
                "score": score,
            }
            for (left, top, right, bottom), score, class_id in boxes
        ]
        scores = found.boxes.conf.tolist()
        return {"result": regions, "score": sum(scores) / max(1, len(scores)), "model_version": "handwritten"}


@cache
def _model() -> tuple[Any, dict[str, Any]]:
    """The model, and what to tell its `predict`."""
    settings = load_settings()
    options = {"imgsz": settings.model_image_size} if settings.model_image_size else {}
    return YOLO(find_weights(settings.model_name, settings.model_root)), options


def main() -> None:
    """Serve this class."""
    serve([*sys.argv[1:], "--model", "benchmarks.handwritten_backend:HandwrittenBackend"])


if __name__ == "__main__":
    main()
