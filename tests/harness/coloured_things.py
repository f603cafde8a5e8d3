"""Coloured rectangles, perhaps turned, as pictures and as people draw them in Label Studio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

LABELS = '<Label value="red"/><Label value="blue"/>'
CONFIG = f"""<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels></View>"""
COLORS = {"red": (220, 20, 20), "blue": (20, 20, 220)}


@dataclass(frozen=True)
class Thing:
    """A coloured rectangle: its center and size in pixels of the upright image, and its clockwise degrees."""

    label: str
    center_xy: tuple[float, float]
    size_wh: tuple[float, float]
    degrees: float = 0.0

    @property
    def corners(self) -> NDArray[np.float64]:
        """From its top left one, clockwise."""
        radians = math.radians(self.degrees)
        across, down = (
            np.array([math.cos(radians), math.sin(radians)]),
            np.array([-math.sin(radians), math.cos(radians)]),
        )
        across, down = across * self.size_wh[0] / 2, down * self.size_wh[1] / 2
        center = np.array(self.center_xy)
        return np.array(
            [center - across - down, center + across - down, center + across + down, center - across + down]
        )

    def region(self, image_wh: tuple[int, int], **more: Any) -> dict[str, Any]:
        """As the page stores it: percent of the image, turned around the top left corner."""
        x, y = self.corners[0]
        value = {
            "x": x / image_wh[0] * 100,
            "y": y / image_wh[1] * 100,
            "width": self.size_wh[0] / image_wh[0] * 100,
            "height": self.size_wh[1] / image_wh[1] * 100,
            "rotation": self.degrees,
        }
        return {
            "id": f"{self.label}{x:.0f}{y:.0f}",
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": {**value, "rectanglelabels": [self.label]},
            "original_width": image_wh[0],
            "original_height": image_wh[1],
            "image_rotation": 0,
            "origin": "manual",
            **more,
        }


def draw(things: Sequence[Thing], image_wh: tuple[int, int]) -> Image.Image:
    picture = Image.new("RGB", image_wh, (230, 230, 230))
    pen = ImageDraw.Draw(picture)
    for thing in things:
        pen.polygon([tuple(corner - 0.5) for corner in thing.corners], fill=COLORS[thing.label])
    return picture
