"""Weights that say what an image shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import Compose
from ultralytics.data.augment import classify_transforms

from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.detection.heads.boxes import distance, first
from yolo_backend.detection.heads.head import HeadOptions
from yolo_backend.detection.weights import WeightsFileError

_MOST_SCALED_PX = 25_000_000
"""More pixels than these aren't made of an image only to cut the middle out."""


class ClassifyHead:
    """The outputs are a probability for each class. A class is found around the whole image, with it as its score."""

    kind: ClassVar[str] = "classify"
    has_costly_boxes: ClassVar[bool] = False

    def __init__(self, options: HeadOptions) -> None:
        self._options = options
        # Without their last steps, which the model does: to numbers from 0 to 1.
        self._crop = Compose(classify_transforms(options.image_size).transforms[:2])

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale an image by its shorter side, and cut its middle out."""
        picture = Image.fromarray(image)
        box = self._middle(picture.size)
        if box is None:
            return np.array(self._crop(picture))
        height, width = self._options.image_size
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR, box))

    def _middle(self, size_wh: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """Of an image that would be huge when it is scaled, what is cut out, as x, y, x, y; None of all others.

        Scaled by itself it becomes the same pixels, but for the rounding of its place to a 32-bit float.
        """
        height, width = self._options.image_size
        if height != width:  # it is scaled to just this size
            return None
        scaled = [int(height * side / min(size_wh)) for side in size_wh]  # as torchvision's Resize says
        if math.prod(scaled) <= max(_MOST_SCALED_PX, math.prod(size_wh)):
            return None
        begins = [round((side - height) / 2) for side in scaled]  # as its CenterCrop says
        (left, right), (top, bottom) = (
            (begin * real / side, min((begin + height) * real / side, real))
            for begin, side, real in zip(begins, scaled, size_wh, strict=True)
        )
        return left, top, right, bottom

    def check(self, raw: Any) -> None:
        """Raises WeightsFileError if the outputs can't be probabilities of the classes."""
        name, classes = self._options.weights_name, self._options.class_count
        outputs = first(raw)
        shape = tuple(outputs.shape)
        if shape[1:] != (classes,):
            raise WeightsFileError(
                f"Weights {name} answer numbers of the shape {shape}: for the task classify it should be a "
                f"probability for each of their {classes} classes; export them anew with Ultralytics, "
                'YOLO("best.pt").export(format="onnx")'
            )
        low, high = float(outputs.min()), float(outputs.max())
        if not (low >= -0.01 and high <= 1.01):  # this is also true if one is NaN
            raise WeightsFileError(
                f"Weights {name} answer {low:.3g} to {high:.3g} in the place of probabilities from 0 to 1: train or "
                "export them anew"
            )

    def read(self, raw: Any, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        """The classes that each image of a batch shows, the most probable first."""
        probabilities = first(raw).float().cpu().numpy()
        if len(probabilities) != len(batch):
            raise RuntimeError(f"the model gave {len(probabilities)} outputs for {len(batch)} images")
        return [self._found(each, image, score_threshold) for each, image in zip(probabilities, batch, strict=True)]

    def _found(self, probabilities: NDArray[np.float32], image: Letterboxed, score_threshold: float) -> Detections:
        order = np.argsort(-probabilities, kind="stable")[: self._options.max_detections]
        class_ids = order[probabilities[order] > score_threshold]
        box = np.array([0, 0, *image.original_size_wh], np.float32)
        return Detections(np.tile(box, (len(class_ids), 1)), probabilities[class_ids], class_ids.astype(np.int64))

    @classmethod
    def differences(cls, ours: Any, theirs: Any, class_count: int, *, end2end: bool) -> tuple[float, float]:
        """How far the probabilities of two models are apart; there are no boxes that could differ."""
        one, other = (first(raw).float().cpu() for raw in (ours, theirs))
        if one.shape != other.shape:
            raise ValueError(f"the export gives {tuple(one.shape)}, the weights {tuple(other.shape)}")
        return 0.0, distance(one, other)


def transforms_problem(transforms: Any) -> str | None:
    """Why weights that were trained with these transforms would be shown other images than they know; None if not.

    They are those of the file, if it has some. Ultralytics' own neither shift nor scale colors.
    """
    for step in getattr(transforms, "transforms", ()):
        mean, deviation = getattr(step, "mean", None), getattr(step, "std", None)
        if mean is None or deviation is None:
            continue
        if torch.as_tensor(mean).any() or (torch.as_tensor(deviation) != 1).any():
            return "colors that are normalized by a mean and a deviation"
    return None
