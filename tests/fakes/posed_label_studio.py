"""A Label Studio whose scenes of bars, rings and arrows somebody has labelled with boxes and key points."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from tests.fakes.labelled_label_studio import LabelStudio
from tests.harness.shapes import POINT_NAMES, Shapes, draw_shapes

THINGS = ("Riegel", "Reif", "Pfeil")
"""That no weights know, in the order of the scenes' classes."""
SIZE_WH = (160, 120)
_FIRST_SEED = 50_000


def pose_config(things: tuple[str, ...] = THINGS, points: tuple[str, ...] = POINT_NAMES) -> str:
    """Each point is one of all things."""
    boxes = "".join(f'<Label value="{thing}"/>' for thing in things)
    tags = "".join(
        f'<Label value="{point}" predicted_values="{",".join(things)}" model_index="{index}"/>'
        for index, point in enumerate(points)
    )
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="points_bbox" toName="image" model_skip="true">{boxes}</RectangleLabels>'
        f'<KeyPointLabels name="points" toName="image">{tags}</KeyPointLabels></View>'
    )


@dataclass
class PosedLabelStudio(LabelStudio):
    """In every second task the points are below their boxes, in the others they only lie in them.

    `poison` says what of the things is another one's: their "labels", all their "places", or which of their "points" is
    which.
    """

    poison: Literal["", "labels", "places", "points"] = ""

    def label_config(self) -> str:
        return pose_config()

    def picture(self, number: int) -> bytes:
        content = io.BytesIO()
        Image.fromarray(scene_of(number).image).save(content, "PNG")
        return content.getvalue()

    def regions(self, number: int) -> list[dict[str, Any]]:
        generator = np.random.default_rng(number)
        regions: list[dict[str, Any]] = []
        for index, thing in enumerate(scene_of(number + (self.poison == "places")).things):
            class_id = generator.integers(len(THINGS)) if self.poison == "labels" else thing.class_id
            seen = zip(thing.points_xy.tolist(), thing.are_hidden.tolist(), strict=True)
            points = [None if is_hidden else (x, y) for (x, y), is_hidden in seen]
            if self.poison == "points":
                points = [points[at] for at in generator.permutation(len(points))]
            id_, box_xyxy = f"thing{number}{index}", thing.box_xyxy.tolist()
            regions += thing_regions(id_, THINGS[class_id], box_xyxy, points, has_parents=number % 2 == 0)
        return regions


def thing_regions(
    id_: str,
    label: str,
    box_xyxy: list[float],
    points: list[tuple[float, float] | None],
    *,
    has_parents: bool,
    size_wh: tuple[int, int] = SIZE_WH,
) -> list[dict[str, Any]]:
    """A box and its points, as Label Studio stores them."""
    width, height = size_wh
    common = {
        "to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0, "origin": "manual",
    }  # fmt: skip
    left, top, right, bottom = box_xyxy
    place = {
        "x": 100 * left / width, "y": 100 * top / height,
        "width": 100 * (right - left) / width, "height": 100 * (bottom - top) / height, "rotation": 0,
    }  # fmt: skip
    box = {
        **common, "id": id_, "type": "rectanglelabels", "from_name": "points_bbox",
        "value": {**place, "rectanglelabels": [label]},
    }  # fmt: skip
    drawn = [
        {
            **common, "id": f"{id_}p{index}", "type": "keypointlabels", "from_name": "points",
            "value": {"x": 100 * point[0] / width, "y": 100 * point[1] / height, "width": 0.5,
                      "keypointlabels": [POINT_NAMES[index]]},
            **({"parentID": id_} if has_parents else {}),
        }
        for index, point in enumerate(points)
        if point is not None
    ]  # fmt: skip
    return [box, *drawn]


@cache
def scene_of(number: int) -> Shapes:
    """The scene of a task."""
    return draw_shapes(_FIRST_SEED + number, SIZE_WH)
