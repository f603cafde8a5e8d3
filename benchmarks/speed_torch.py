"""Ultralytics and torch alone: the export, and their speed; a child process of `speed_limits` and `gpu`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox

from yolo_backend.detection import exporting

_STRIDE = 32
_WARM_UPS = 2


def export(weights: str, image_size: int) -> Any:
    """Write the ONNX model beside the weights, for batches and images of any shape; its path."""
    return str(YOLO(weights).export(format="onnx", dynamic=True, simplify=True, imgsz=image_size, device="cpu"))


def export_own(weights: str, made: str) -> Any:
    """Write the ONNX model as the backend makes it; its path."""
    exporting.export(Path(weights), Path(made), "onnx", "cpu", 300)
    return made


def letterbox(photos: Sequence[str], image_size: int, tensors: str) -> Any:
    """Write photographs of one shape as the model takes them, float32 (n, 3, height, width); height and width."""
    box = LetterBox((image_size, image_size), auto=True, stride=_STRIDE)
    pixels = [box(image=np.asarray(Image.open(photo).convert("RGB"))) for photo in photos]
    images = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.save(tensors, np.ascontiguousarray(images))
    return images.shape[2:]


def rates(weights: str, tensors: str, batches: Sequence[int], for_s: float) -> Any:
    """Images per second of each size of batch, with torch's own number of threads."""
    model: Any = YOLO(weights).model.fuse().eval()
    images = torch.from_numpy(np.load(tensors))
    return [_rate(model, images[:batch], for_s) for batch in batches]


def predict(
    weights: str, photos: Sequence[str], folder: str, times: int, *, image_size: int, device: str, batch: int
) -> Any:
    """Ultralytics' own `predict` on files, over all of them so many times: seconds, images and boxes.

    In batches and, on a GPU, in half precision; warmed up by one round. `folder` takes the lists of files.
    """
    yolo = YOLO(weights)
    once, often = (_listing(Path(folder) / f"{count}.txt", photos, count) for count in (1, times))
    options = {"imgsz": image_size, "device": device, "batch": batch, "half": device != "cpu", "verbose": False}
    for _ in yolo.predict(once, stream=True, **options):
        pass
    began_at = time.monotonic()
    boxes = [len(found.boxes) for found in yolo.predict(often, stream=True, **options)]
    return {"took_s": time.monotonic() - began_at, "images": len(boxes), "boxes": sum(boxes)}


def _listing(listing: Path, photos: Sequence[str], times: int) -> Path:
    """A text file of paths: of a list in Python, Ultralytics makes a single batch."""
    listing.write_text("\n".join(list(photos) * times))
    return listing


@torch.inference_mode()
def _rate(model: Any, images: torch.Tensor, for_s: float) -> float:
    for _ in range(_WARM_UPS):
        model(images)
    done = 0
    began_at = time.monotonic()
    while time.monotonic() < began_at + for_s:
        model(images)
        done += len(images)
    return done / (time.monotonic() - began_at)


if __name__ == "__main__":
    question = json.loads(sys.argv[1])
    answers: dict[str, Callable[..., Any]] = {
        "export": export,
        "export_own": export_own,
        "letterbox": letterbox,
        "rates": rates,
        "predict": predict,
    }
    print(json.dumps(answers[question.pop("ask")](**question)))
