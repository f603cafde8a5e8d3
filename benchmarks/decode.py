"""What `DECODE=fast` does to boxes and mAP: `python -m benchmarks.decode`, written into docs/journal/speed.md.

Real labelled photographs (BCCD's validation split) are scaled up to 12 megapixels, with and without the noise of a
sensor, and decoded fully and at a reduced scale.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import ap_per_class, box_iou

from benchmarks.speed_photos import TEST_DATA, WEIGHTS
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import ROOT
from yolo_backend.detection.detections import Detections
from yolo_backend.detection.engine import Engine
from yolo_backend.images.decode import decode_image

_REPORT = ROOT / "docs" / "journal" / "speed.md"
_SIZE_WH = (4000, 3000)
_QUALITY = 90
_LOW, _SHOWN = 0.001, 0.25  # scores: for mAP, as Ultralytics validates, and for a person
_IMAGE_SIZES = (320, 640)
_NOISE_SIGMAS = (0, 2, 8)


@dataclass(frozen=True)
class Truth:
    """The labelled boxes of a photograph, in pixels of what it is scaled up to."""

    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure what decoding at a reduced scale does to mAP.")
    parser.add_argument("--photos", type=int, default=1000, help="at most so many photographs")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    began = time.monotonic()
    files = sorted((TEST_DATA / "data" / "bccd" / "images" / "val").glob("*.jpg"))[: options.photos]
    truths = [_truth_of(file) for file in files]
    engines = {size: Engine(WEIGHTS, device="cpu", image_size=size) for size in _IMAGE_SIZES}
    rows = []
    for sigma in _NOISE_SIGMAS:
        jpegs = [_scaled_up(file, sigma) for file in files]
        for size, engine in engines.items():
            full = [_detect(engine, jpeg, None) for jpeg in jpegs]
            fast = [_detect(engine, jpeg, 2 * size) for jpeg in jpegs]
            changed = sum(_count(ones) != _count(others) for ones, others in zip(full, fast, strict=True))
            (map50, map50_95), (fast50, fast50_95) = (_mean_ap(found, truths) for found in (full, fast))
            rows.append(
                [
                    f"{size}",
                    f"{sigma}",
                    f"{map50:.3f} / {map50_95:.3f}",
                    f"{fast50:.3f} / {fast50_95:.3f}",
                    f"{changed} of {len(files)}",
                ]
            )
            print(rows[-1], flush=True)
    head = ["model input", "noise (sigma)", "full: mAP50 / mAP50-95", "fast: mAP50 / mAP50-95", "other number of boxes"]
    text = f"{table(head, rows)}\n\n{made_by('decode', time.monotonic() - began)}"
    print(text)
    if not options.no_report:
        write_section("decode", text, _REPORT)


def _scaled_up(file: Path, noise_sigma: float) -> bytes:
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB").resize(_SIZE_WH, Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
    content = io.BytesIO()
    noisy = np.clip(pixels + noise_sigma * noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def _truth_of(file: Path) -> Truth:
    labels = np.loadtxt(TEST_DATA / "data" / "bccd" / "labels" / "val" / f"{file.stem}.txt", np.float32, ndmin=2)
    center, half = labels[:, 1:3], labels[:, 3:5] / 2
    boxes_xyxy = np.concatenate([center - half, center + half], axis=1) * np.array([*_SIZE_WH, *_SIZE_WH], np.float32)
    return Truth(boxes_xyxy, labels[:, 0].astype(np.int64))


def _detect(engine: Engine, jpeg: bytes, enough_px: int | None) -> Detections:
    image = decode_image(jpeg, 100, enough_px)
    return engine.detect([engine.letterbox(image.pixels, image.size_wh)], _LOW)[0]


def _count(found: Detections) -> int:
    return int((found.scores > _SHOWN).sum())


def _mean_ap(found: Sequence[Detections], truths: Sequence[Truth]) -> tuple[float, float]:
    """mAP50 and mAP50-95, as Ultralytics counts them."""
    matcher = BaseValidator.__new__(BaseValidator)  # its matching alone
    matcher.iouv = torch.linspace(0.5, 0.95, 10)
    correct = []
    for detections, truth in zip(found, truths, strict=True):
        iou = box_iou(torch.from_numpy(truth.boxes_xyxy), torch.from_numpy(detections.boxes))
        classes = torch.from_numpy(detections.class_ids), torch.from_numpy(truth.class_ids)
        correct.append(matcher.match_predictions(*classes, iou).numpy())
    scores, class_ids = (
        np.concatenate(column) for column in zip(*[(d.scores, d.class_ids) for d in found], strict=True)
    )
    there = np.concatenate([truth.class_ids for truth in truths])
    average_precision = ap_per_class(np.concatenate(correct), scores, class_ids, there)[5]
    return float(average_precision[:, 0].mean()), float(average_precision.mean())


if __name__ == "__main__":
    main()
