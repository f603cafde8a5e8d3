"""A Label Studio whose scenes of bars, rings and arrows somebody has labelled: with polygons, and with a brush."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.fakes.labelled_label_studio import LabelStudio
from tests.harness.shapes import CLASS_NAMES, Shapes, Thing, draw_shapes
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.outlines import outlines_of, smoothed
from yolo_backend.labels.rle import encode_rle

SIZE_WH = (160, 120)
FIRST_SEED = 2_000  # neither seen by the tests' weights, nor drawn by other tests
PAINTED = "ring"
"""Rings have holes, so they are painted; the others are polygons."""


def outlined_config(labels: tuple[str, ...] = CLASS_NAMES) -> str:
    """Two controls, one of which has the label of what is painted; `labels` are in the order of the classes."""
    polygons, masks = (
        "".join(
            f'<Label value="{label}"/>'
            for name, label in zip(CLASS_NAMES, labels, strict=True)
            if (name == PAINTED) is is_painted
        )
        for is_painted in (False, True)
    )
    return (
        '<View><Image name="image" value="$image"/>'
        f'<PolygonLabels name="outline" toName="image">{polygons}</PolygonLabels>'
        f'<BrushLabels name="mask" toName="image">{masks}</BrushLabels></View>'
    )


@dataclass
class OutlinedLabelStudio(LabelStudio):
    """`labels` are those of the scenes' classes, in their order. If they are `shuffled`, things have any of them."""

    labels: tuple[str, ...] = CLASS_NAMES
    shuffled: bool = False

    def label_config(self) -> str:
        return outlined_config(self.labels)

    def picture(self, number: int) -> bytes:
        content = io.BytesIO()
        Image.fromarray(scene_of(number).image).save(content, "JPEG", quality=95)
        return content.getvalue()

    def regions(self, number: int) -> list[dict[str, Any]]:
        things = scene_of(number).things
        class_ids = [thing.class_id for thing in things]
        if self.shuffled:
            class_ids = np.random.default_rng(number).integers(len(CLASS_NAMES), size=len(things)).tolist()
        return [
            region_of(thing, self.labels[class_id], is_painted=CLASS_NAMES[class_id] == PAINTED)
            for thing, class_id in zip(things, class_ids, strict=True)
        ]


@cache
def scene_of(number: int) -> Shapes:
    """What the picture of a task shows."""
    return draw_shapes(FIRST_SEED + number, SIZE_WH)


def region_of(thing: Thing, label: str, *, is_painted: bool) -> dict[str, Any]:
    """The thing as somebody draws it on the page."""
    mask = Mask.of_bitmap(thing.mask)
    drawn: tuple[str, str, dict[str, Any]]
    if is_painted:
        drawn = ("mask", "brushlabels", {"format": "rle", "rle": encode_rle(mask, SIZE_WH)})
    else:
        points = smoothed(outlines_of(mask)[0], 0.5) / SIZE_WH * 100
        drawn = ("outline", "polygonlabels", {"points": np.round(points, 4).tolist(), "closed": True})
    from_name, type_, value = drawn
    return {
        "id": f"{label}{int(mask.runs[0])}",
        "type": type_,
        "from_name": from_name,
        "to_name": "image",
        "original_width": SIZE_WH[0],
        "original_height": SIZE_WH[1],
        "image_rotation": 0,
        "origin": "manual",
        "value": {**value, type_: [label]},
    }
