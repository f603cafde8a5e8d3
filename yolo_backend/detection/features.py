"""An image's features, as a detector sees it: vectors that are near each other if images look alike to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from yolo_backend.detection.engine import pick_device
from yolo_backend.detection.explaining import failure
from yolo_backend.detection.models import load_checkpoint
from yolo_backend.detection.weights import WeightsError


class FeatureExtractor:
    """The features are the outputs of a detector's layer before the head, averaged over the image. For one thread."""

    def __init__(self, path: Path, *, device: str = "auto", image_size: int | None = None) -> None:
        """Load the weights in torch, whatever engine detects. Raises WeightsError, also for exported weights."""
        if path.suffix != ".pt":
            raise WeightsError(f"Weights {path.name} have no features to compare images by: only a .pt file has")
        self._device = pick_device(device)
        try:
            self._yolo = load_checkpoint(path)
        except Exception as error:
            raise WeightsError(f"Weights {path.name} {failure(error, self._device)}") from error
        self._image_size = image_size or self._yolo.overrides.get("imgsz", 640)

    def extract(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features of an RGB image (height, width, 3): a vector of length 1, whatever the image's size."""
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        [features] = self._yolo.embed(bgr, imgsz=self._image_size, device=self._device, verbose=False, save=False)
        unit: torch.Tensor = torch.nn.functional.normalize(features.float(), dim=0)
        vector: NDArray[np.float32] = unit.cpu().numpy()
        return vector
