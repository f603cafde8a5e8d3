"""What is done with a model's outputs, beside Ultralytics: `python -m benchmarks.kinds`, into docs/journal/speed.md.

A row for each kind of weights: the same raw outputs are read by the backend and by Ultralytics' predictor, by turns, so
that a ratio doesn't depend on what else the machine is doing. The weights are those of the tests, and find much.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from tests.harness.report import made_by, table, write_section
from tests.harness.shapes import draw_shapes, shapes_weights
from tests.harness.stack import ROOT
from yolo_backend.detection.engine import Engine

_REPORT = ROOT / "docs" / "journal" / "speed.md"
_SIZE_WH = (1280, 960)
_IMAGE_SIZE = 640
_THRESHOLD = 0.01
# A kind of weights, and whether masks are made. Without, Ultralytics makes those of the model's size all the same.
_ROWS = (("segment", True), ("segment", False), ("pose", False), ("obb", False), ("classify", False))


@dataclass(frozen=True)
class Measured:
    """What it takes for an image: ours and Ultralytics', in milliseconds, over so many finds."""

    what: str
    found: float
    ours_ms: float
    theirs_ms: float


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Time what is done with outputs of each kind of weights.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    began = time.monotonic()
    images = [draw_shapes(seed, _SIZE_WH).image for seed in range(4)]
    rows = [measure(kind, images, options.rounds, with_masks=masks) for kind, masks in _ROWS]
    text = table(
        ["weights", "found in an image", "backend", "Ultralytics", "ratio"],
        [
            [row.what, f"{row.found:.0f}", f"{row.ours_ms:.2f} ms", f"{row.theirs_ms:.2f} ms", _ratio(row)]
            for row in rows
        ],
    )
    print(text)
    if not options.no_report:
        made = made_by("bench", time.monotonic() - began, "python -m benchmarks.kinds")
        write_section("bench-kinds", f"{made}\n\n{text}", _REPORT)


def _ratio(row: Measured) -> str:
    return f"{row.ours_ms / row.theirs_ms:.2f}"


@torch.inference_mode()
def measure(kind: str, images: Sequence[NDArray[np.uint8]], rounds: int, *, with_masks: bool) -> Measured:
    """Read the outputs of these images by turns; the medians of all rounds."""
    weights = shapes_weights(kind)
    size = _IMAGE_SIZE if kind != "classify" else None
    engine = Engine(weights, device="cpu", engine="torch", image_size=size)
    predictor = _predictor(YOLO(weights), images[0], max(engine.info.image_size), with_masks=with_masks)
    ours: list[float] = []
    theirs: list[float] = []
    found = 0
    for number in range(-1, rounds):  # the first one warms up
        for image in images:
            shown = replace(engine.letterbox(image), wants_masks=with_masks)
            pixels = torch.from_numpy(shown.pixels).permute(2, 0, 1)[None].float() / 255
            predictor.batch = ([""], None, None)
            # The outputs are changed by who reads them.
            raw = engine._model([shown.pixels])
            began_at = time.perf_counter()
            read = engine._head.read(raw, [shown], _THRESHOLD)
            took_s = time.perf_counter() - began_at
            raw = engine._model([shown.pixels])
            began_at = time.perf_counter()
            predictor.postprocess(raw, pixels, [image])
            their_s = time.perf_counter() - began_at
            if number >= 0:
                ours.append(took_s)
                theirs.append(their_s)
                found += len(read[0])
    what = f"{kind}, with masks" if with_masks else kind
    return Measured(what, found / len(ours), 1000 * statistics.median(ours), 1000 * statistics.median(theirs))


def _predictor(yolo: Any, image: NDArray[np.uint8], image_size: int, *, with_masks: bool) -> Any:
    """Ultralytics' own, set up by a first prediction."""
    options = {"conf": _THRESHOLD, "imgsz": image_size, "device": "cpu", "retina_masks": with_masks, "verbose": False}
    yolo.predict(image[..., ::-1], **options)
    return yolo.predictor


if __name__ == "__main__":
    main()
