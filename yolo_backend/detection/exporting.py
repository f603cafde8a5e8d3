"""The exporter, a process of its own: converts weights to another format, and compares the result with them.

`python -m yolo_backend.detection.exporting weights.pt made.onnx onnx cpu 300`
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.nn.modules.block import DFL

from yolo_backend.detection.exports import EXPORTED_BATCH
from yolo_backend.detection.heads import HEADS
from yolo_backend.detection.models import Model, UltralyticsModel, open_exported

# How near boxes have to be on an exported engine, in pixels and in score.
_BOX_TOLERANCE_PX = 1.0
_SCORE_TOLERANCE = 0.01


def main() -> None:
    """Exits with 1, and says why in the last line of stderr, if there can be no export."""
    weights, made, format, device, max_detections = sys.argv[1:]  # noqa: A001
    try:
        export(Path(weights), Path(made), format, device, int(max_detections))
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {error}".splitlines()[0]) from error


def export(weights: Path, made: Path, format: str, device: str, max_detections: int) -> None:  # noqa: A002
    """Export `weights` to the file `made`, in a folder where anything else may be written, too."""
    own = Path(shutil.copy(weights, made.with_name(f"weights{weights.suffix}")))  # Ultralytics writes files beside it
    expected = UltralyticsModel(own, device, max_detections=max_detections)
    options: dict[str, Any] = {"quantize": 16, "batch": EXPORTED_BATCH} if format == "engine" else {}
    yolo = YOLO(own)
    if format == "onnx":
        lighten(yolo.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx calls the exporter that Ultralytics uses old
        exported = yolo.export(
            format=format, dynamic=True, simplify=True, imgsz=list(expected.image_size), device=device,
            max_det=max_detections, verbose=False, **options,
        )  # fmt: skip
    check_agreement(expected, open_exported(Path(exported), weights.name, format, device))
    Path(exported).replace(made)


class _MeanDistances(torch.nn.Module):
    """Ultralytics' DFL, how far each side of a box is: the mean of its distribution over some distances.

    If a softmax has its axis in the middle, ONNX Runtime transposes everything: a tenth of a small model's time.
    """

    sums: torch.Tensor

    def __init__(self, dfl: DFL) -> None:
        super().__init__()
        distances = dfl.conv.weight.detach().flatten()
        self.register_buffer("sums", torch.stack([torch.ones_like(distances), distances]))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, 4 * distances, candidates) to (n, 4, candidates)."""
        count, _, candidates = logits.shape
        logits = logits.view(count, 4, -1, candidates)
        sums = self.sums @ (logits - logits.amax(2, keepdim=True)).exp()
        return sums[:, :, 1] / sums[:, :, 0]


def lighten(network: Any) -> None:
    """Replace the parts of a network that are slow in ONNX Runtime by fast ones. Its outputs stay the same."""
    for module in list(network.modules()):
        if isinstance(getattr(module, "dfl", None), DFL):
            module.dfl = _MeanDistances(module.dfl)


def check_agreement(expected: Model, exported: Model) -> None:
    """Raises ValueError if the two don't give the same boxes and scores."""
    height, width = expected.image_size
    random = np.random.default_rng(0)
    for count, shape in (
        (1, (height, width)),
        (2, (height, max(expected.stride, width // 2 // expected.stride * expected.stride))),
    ):
        images = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(count)]
        # One as a person's image, the others as bulk work, because an engine may run these in another way.
        ours, theirs = (model(images, for_person=count == 1) for model in (exported, expected))
        boxes_px, scores = HEADS[expected.kind].differences(
            ours, theirs, len(expected.class_names), end2end=expected.end2end
        )
        if not (boxes_px <= _BOX_TOLERANCE_PX and scores <= _SCORE_TOLERANCE):  # this is also true if one is NaN
            raise ValueError(f"the export differs from the weights: boxes by {boxes_px:.3g} px, scores by {scores:.3g}")


if __name__ == "__main__":
    main()
