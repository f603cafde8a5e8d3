"""`<Labels>` with a `<Rectangle>`, `<Polygon>`, `<Brush>` or `<Ellipse>` beside it, both on an `<Image>`.

Each shape is two regions with one id: a place, and the same with its label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.controls.brushes import BrushLabels
from yolo_backend.labels.controls.ellipses import EllipseLabels
from yolo_backend.labels.controls.kind import ControlKind, Found, Part, Point
from yolo_backend.labels.controls.polygons import PolygonLabels
from yolo_backend.labels.controls.rectangles import RectangleLabels
from yolo_backend.labels.controls.shapes import ShapeControl, ShapeLabels
from yolo_backend.labels.tags import Tag, is_true

SHAPES: Sequence[ShapeLabels[Any]] = (RectangleLabels(), PolygonLabels(), BrushLabels(), EllipseLabels())
"""If several shapes are beside the Labels, the first of these is predicted."""


class LabelsWithShape(ControlKind[ShapeControl]):
    """Reads `<Labels>`, and the first tag of a shape on all of its images, which holds its regions' places."""

    tags = frozenset({"labels"})
    region_types = frozenset({"labels", *(kind.shape for kind in SHAPES)})

    def attributes(self, tag: Tag) -> Mapping[str, str]:
        """Some attributes may stand on the shape."""
        found = shape_beside(tag)
        return {**(found[1].attr if found else {}), **tag.element.attr}

    def why_not_served(self, tag: Tag) -> str | None:
        """Without an Image it is for texts or sounds, and nothing is said about it."""
        if not tag.image_tags:
            return None
        if other := tag.why_not_on_image():
            return other
        if shape_beside(tag) is None:
            return (
                f'{tag.shown} has no Rectangle on "{tag.image_tags[0].name}" beside it, nor a Polygon, Brush or '
                "Ellipse: add one, or write RectangleLabels"
            )
        return None

    def read(self, tag: Tag, image_tag: Any) -> ShapeControl:
        """The control on one of its images, with the shape's name. Raises LabelingConfigError."""
        found = shape_beside(tag)
        if found is None:
            raise TypeError(f"{tag.shown} has no shape: why_not_served says so")
        kind, element = found
        control: ShapeControl = kind.read_named(tag, image_tag, self.attributes(tag), str(element.name))
        return control

    def check_weights(self, control: ShapeControl, weights: WeightsInfo, name: str) -> None:
        """As for the shape."""
        _kind_of(control).check_weights(control, weights, name)

    def trained_with(self, control: ShapeControl) -> frozenset[str]:
        """As for the shape."""
        return _kind_of(control).trained_with(control)

    def wants_masks(self, control: ShapeControl, weights: WeightsInfo) -> bool:
        """As for the shape."""
        return _kind_of(control).wants_masks(control, weights)

    def make_parts(self, control: ShapeControl, found: Found) -> list[list[Part]]:
        """For each region of the shape two with one id, as the page itself stores them."""
        return _kind_of(control).make_parts(control, found)

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """As the shape whose value it has."""
        return next((outlines for kind in SHAPES if (outlines := kind.outlines(region, size_wh))), [])

    def counts(self, region: Mapping[str, Any]) -> bool:
        """A further shape of the same find isn't counted."""
        return "parentID" not in region

    def ingredients(self, control: ShapeControl) -> dict[str, Any]:
        """The shape and its name, from which half of the regions are."""
        kind = _kind_of(control)
        return {kind.shape: control.shape_name, **kind.options(control)}


def shape_beside(tag: Tag) -> tuple[ShapeLabels[Any], Any] | None:
    """The kind of the shape that holds the places of these Labels, and its tag; None if there is none.

    A shape with `model_skip` is taken only where there is no other one.
    """
    found = [(kind, element) for kind in SHAPES if (element := tag.beside(kind.shape))]
    served = (each for each in found if not is_true(each[1].attr, "model_skip"))
    return next(served, found[0] if found else None)


def why_not_alone(tag: Tag) -> str | None:
    """What is to be said of a tag that is a shape without labels; None if it holds the places of Labels."""
    beside = (Tag(element, tag.tags, tag.is_repeated) for element in tag.tags if element.tag.lower() == "labels")
    used = [(labels, found[1]) for labels in beside if (found := shape_beside(labels))]
    if any(element is tag.element for _, element in used):
        return None
    for labels, element in used:
        if all(image_tag in labels.image_tags for image_tag in tag.image_tags):
            return f"{tag.shown} is left to people, because {labels.shown} is predicted with the {element.tag}"
    return f"{tag.shown} has no Labels beside it: add them, or write {tag.element.tag}Labels"


def _kind_of(control: ShapeControl) -> ShapeLabels[Any]:
    return next(kind for kind in SHAPES if type(control) is kind.control_type)
