"""What the model is shown of an image, and how what was found in the parts becomes what was found in the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections, Letterboxed, WeightsInfo

AreaXyxy = tuple[int, int, int, int]
Letterbox = Callable[[NDArray[np.uint8], tuple[int, int]], Letterboxed]


class View(Protocol):
    """A way of showing images. `name` holds the numbers that decide about it: it is in the `model_version`."""

    name: str

    def takes(self, weights: WeightsInfo) -> bool:
        """Returns True if these weights are shown images in this view."""

    def enough_px(self, weights: WeightsInfo) -> int | None:
        """How long the longer side of an image has to be, if it is decoded smaller; None if it never may be."""

    def areas(self, size_wh: tuple[int, int]) -> Sequence[AreaXyxy]:
        """The areas of an image of this size that the model is shown, one at least; they may overlap."""

    def merge(self, found: Sequence[Detections], areas: Sequence[AreaXyxy]) -> Detections:
        """What was found in the areas as one, best score first, with all `extras` and masks.

        What was found comes in the pixels of the whole image, not of its area.
        """


class Whole:
    """The whole image, at once."""

    name = "whole"

    def takes(self, weights: WeightsInfo) -> bool:
        return True

    def enough_px(self, weights: WeightsInfo) -> int | None:
        if weights.kind == "classify":  # scaled by the shorter side, which may be a small part of the longer one
            return None
        return 2 * max(weights.image_size)

    def areas(self, size_wh: tuple[int, int]) -> Sequence[AreaXyxy]:
        return [(0, 0, *size_wh)]

    def merge(self, found: Sequence[Detections], areas: Sequence[AreaXyxy]) -> Detections:
        return found[0]


WHOLE = Whole()
# The first view that takes the weights is theirs, because what is remembered of an image is known by the weights alone.
VIEWS: tuple[View, ...] = (WHOLE,)


def view_for(weights: WeightsInfo) -> View:
    """The view that these weights are shown images in."""
    return next(view for view in VIEWS if view.takes(weights))


@dataclass(frozen=True)
class Shown:
    """What a model is shown of an image: a letterboxed image for each area of the view."""

    view: View
    areas: Sequence[AreaXyxy]
    images: Sequence[Letterboxed]

    def asking_for_masks(self) -> Shown:
        """The same, and masks are wanted of what is found."""
        return replace(self, images=[replace(image, wants_masks=True) for image in self.images])

    def merge(self, found: Sequence[Detections]) -> Detections:
        """What was found in each of the images, as one, in the pixels of the whole image."""
        in_image = [each.moved(area[:2]) for each, area in zip(found, self.areas, strict=True)]
        return self.view.merge(in_image, self.areas)


def show(view: View, pixels: NDArray[np.uint8], size_wh: tuple[int, int], letterbox: Letterbox) -> Shown:
    """Letterbox what the view shows of an image of this size; its `pixels` may be fewer (DECODE)."""
    areas: list[AreaXyxy] = []
    images: list[Letterboxed] = []
    for area in view.areas(size_wh):
        part, exact = (pixels, area) if area == (0, 0, *size_wh) else _cut(pixels, area, size_wh)
        left, top, right, bottom = exact
        areas.append(exact)
        images.append(letterbox(part, (right - left, bottom - top)))
    return Shown(view, areas, images)


def _cut(pixels: NDArray[np.uint8], area: AreaXyxy, size_wh: tuple[int, int]) -> tuple[NDArray[np.uint8], AreaXyxy]:
    """The pixels of an area, and the exact area that they show, which may be larger, because pixels are whole."""
    scale_x, scale_y = pixels.shape[1] / size_wh[0], pixels.shape[0] / size_wh[1]
    left, top = math.floor(area[0] * scale_x), math.floor(area[1] * scale_y)
    right, bottom = math.ceil(area[2] * scale_x), math.ceil(area[3] * scale_y)
    exact = (round(left / scale_x), round(top / scale_y), round(right / scale_x), round(bottom / scale_y))
    return pixels[top:bottom, left:right], exact
