"""`<Labels>` with a `<Rectangle>` beside it, both on an `<Image>`: each box is a place, and the same with its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yolo_backend.labels.controls.kind import Part
from yolo_backend.labels.controls.rectangles import RectangleControl, RectangleLabels
from yolo_backend.labels.places import Place
from yolo_backend.labels.tags import Tag


class LabelsWithRectangle(RectangleLabels):
    """Reads `<Labels>`, and the first `<Rectangle>` on all of its images, which holds its regions' places."""

    tags = frozenset({"labels"})
    region_types = frozenset({"labels", "rectangle"})

    def attributes(self, tag: Tag) -> Mapping[str, str]:
        """Some attributes may stand on the Rectangle."""
        rectangle = tag.beside("rectangle")
        return {**(rectangle.attr if rectangle else {}), **tag.element.attr}

    def why_not_served(self, tag: Tag) -> str | None:
        """Without an Image it is for texts or sounds, and nothing is said about it."""
        if not tag.image_tags:
            return None
        if other := tag.why_not_on_image():
            return other
        if tag.beside("rectangle") is None:
            image_name = tag.image_tags[0].name
            return f'{tag.shown} has no Rectangle on "{image_name}" beside it: add one, or write RectangleLabels'
        return None

    def read(self, tag: Tag, image_tag: Any) -> RectangleControl:
        """The control on one of its images, with the Rectangle's name."""
        rectangle = tag.beside("rectangle")
        return replace(super().read(tag, image_tag), rectangle_name=str(rectangle.name) if rectangle else None)

    def ingredients(self, control: RectangleControl) -> dict[str, Any]:
        """The Rectangle's name, from which half of its regions are."""
        return {"rectangle": control.rectangle_name}

    def _parts(self, control: RectangleControl, place: Place, label: str) -> list[Part]:
        """Two parts with one id, as the page itself stores them."""
        return [
            {"from_name": str(control.rectangle_name), "type": "rectangle", "value": dict(place)},
            {"from_name": control.from_name, "type": "labels", "value": {**place, "labels": [label]}},
        ]
