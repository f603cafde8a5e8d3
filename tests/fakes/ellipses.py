"""A kind of control of somebody's own, in place of ours: `<EllipseLabels>`, with an ellipse in each box."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls import table
from yolo_backend.labels.controls.kind import ControlKind, Found, Part, Point
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.places import Place, places_of
from yolo_backend.labels.tags import Tag, is_true, read_fields

_LINE_POINTS = 36


def serve_ellipses(patch: pytest.MonkeyPatch) -> None:
    """Serve them until `patch` is undone."""
    others = (kind for kind in table.KINDS if not kind.tags & Ellipses.tags)
    patch.setattr(table, "KINDS", (*others, Ellipses()))
    parse_labeling_config.cache_clear()


def ellipse_config(attributes: str = "", *labels: str) -> str:
    """A labeling config of ellipses only."""
    tags = "".join(f'<Label value="{label}"/>' for label in labels or ("RBC", "WBC", "Platelets"))
    return (
        '<View><Image name="image" value="$image"/>'
        f'<EllipseLabels name="round" toName="image" {attributes}>{tags}</EllipseLabels></View>'
    )


@dataclass(frozen=True)
class EllipseControl(Control):
    """With `model_pupil="true"` each ellipse has a smaller one within, which is a part of it."""

    has_pupil: bool = False


class Ellipses(ControlKind[EllipseControl]):
    """Reads `<EllipseLabels>`."""

    tags = frozenset({"ellipselabels"})
    region_types = frozenset({"ellipselabels"})

    def why_not_served(self, tag: Tag) -> str | None:
        if is_true(self.attributes(tag), "model_square"):
            return f"{tag.shown} is square, which no ellipse is"
        return super().why_not_served(tag)

    def read(self, tag: Tag, image_tag: Any) -> EllipseControl:
        attributes = self.attributes(tag)
        return EllipseControl(**read_fields(tag, image_tag, attributes), has_pupil=is_true(attributes, "model_pupil"))

    def check_weights(self, control: EllipseControl, weights: WeightsInfo, name: str) -> None:
        if control.has_pupil and len(weights.class_names) > 3:
            raise LabelingConfigError(f"{name} have too many classes for eyes")

    def make_parts(self, control: EllipseControl, found: Found) -> list[list[Part]]:
        places = places_of(found.detections, found.indices, found.size_wh)
        return [
            self._parts(control, place, label) if place else []
            for place, label in zip(places, found.labels, strict=True)
        ]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        value, (width, height) = region["value"], size_wh
        turns = [2 * math.pi * number / _LINE_POINTS for number in range(_LINE_POINTS)]
        return [
            [
                (
                    (value["x"] + value["radiusX"] * math.cos(turn)) / 100 * width,
                    (value["y"] + value["radiusY"] * math.sin(turn)) / 100 * height,
                )
                for turn in turns
            ]
        ]

    def counts(self, region: Mapping[str, Any]) -> bool:
        return "parentID" not in region

    def ingredients(self, control: EllipseControl) -> dict[str, Any]:
        return {**super().ingredients(control), "pupil": control.has_pupil}

    def _parts(self, control: EllipseControl, place: Place, label: str) -> list[Part]:
        def part(share: float) -> Part:
            value = {
                "x": place["x"] + place["width"] / 2,
                "y": place["y"] + place["height"] / 2,
                "radiusX": place["width"] / 2 * share,
                "radiusY": place["height"] / 2 * share,
                "rotation": 0,
                "ellipselabels": [label],
            }
            return {"from_name": control.from_name, "type": "ellipselabels", "value": value}

        id_ = uuid.uuid4().hex[:10]
        whole: Part = {**part(1), "id": id_}
        return [whole, {**part(0.4), "id": f"{id_}-pupil", "parentID": id_}] if control.has_pupil else [whole]
