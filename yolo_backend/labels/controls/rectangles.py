"""`<RectangleLabels>` on an `<Image>`: each box is a rectangle with a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.kind import ControlKind, Found, Part, Point
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.places import Place, corners_of, places_of
from yolo_backend.labels.tags import Tag, is_true, read_fields


@dataclass(frozen=True)
class RectangleControl(Control):
    """With `needs_obb` its boxes have to be rotated ones; with a `rectangle_name` they stand on that `<Rectangle>`."""

    needs_obb: bool = False
    rectangle_name: str | None = None
    tag: str = field(kw_only=True, default="rectanglelabels")


class RectangleLabels(ControlKind[RectangleControl]):
    """Reads `<RectangleLabels>`."""

    tags = frozenset({"rectanglelabels"})
    region_types = frozenset({"rectanglelabels"})
    is_trainable = True

    def read(self, tag: Tag, image_tag: Any) -> RectangleControl:
        """The control on one of its images."""
        attributes = self.attributes(tag)
        return RectangleControl(**read_fields(tag, image_tag, attributes), needs_obb=is_true(attributes, "model_obb"))

    def check_weights(self, control: RectangleControl, weights: WeightsInfo, name: str) -> None:
        """`model_obb` wants rotated boxes."""
        if control.needs_obb and weights.kind != "obb":
            raise LabelingConfigError(
                f'model_obb="true" wants OBB weights, and {name} are {weights.kind} weights: leave it out, or name '
                "others in model_path"
            )

    def make_parts(self, control: RectangleControl, found: Found) -> list[list[Part]]:
        """A rectangle for each box."""
        places = places_of(found.detections, found.indices, found.size_wh)
        return [
            self._parts(control, place, label) if place else []
            for place, label in zip(places, found.labels, strict=True)
        ]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """The rectangle, turned as Label Studio turns it."""
        value = region.get("value") or {}
        return [corners_of(value, size_wh)] if all(key in value for key in ("x", "y", "width", "height")) else []

    def ingredients(self, control: RectangleControl) -> dict[str, Any]:
        """None: it was the only kind when versions were first made."""
        return {}

    def _parts(self, control: RectangleControl, place: Place, label: str) -> list[Part]:
        value = {**place, "rectanglelabels": [label]}
        return [{"from_name": control.from_name, "type": "rectanglelabels", "value": value}]
