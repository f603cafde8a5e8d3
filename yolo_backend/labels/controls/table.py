"""The kinds of controls that we serve, and whose a tag, a control or a region is."""

from __future__ import annotations

from typing import Any

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.brushes import BrushLabels
from yolo_backend.labels.controls.choices import Choices, Taxonomy
from yolo_backend.labels.controls.ellipses import EllipseLabels
from yolo_backend.labels.controls.keypoints import KeyPointLabels
from yolo_backend.labels.controls.kind import ControlKind
from yolo_backend.labels.controls.labels_with_shape import LabelsWithShape
from yolo_backend.labels.controls.numbers import Numbers
from yolo_backend.labels.controls.polygons import PolygonLabels
from yolo_backend.labels.controls.rectangles import RectangleLabels

KINDS: tuple[ControlKind[Any], ...] = (
    RectangleLabels(),
    PolygonLabels(),
    BrushLabels(),
    EllipseLabels(),
    LabelsWithShape(),
    KeyPointLabels(),
    Choices(),
    Taxonomy(),
    Numbers(),
)


def kind_of_tag(name: str) -> ControlKind[Any] | None:
    """The kind that reads tags of this name in lower case; None for those that we don't serve."""
    return next((kind for kind in KINDS if name in kind.tags), None)


def kind_of(control: Control) -> ControlKind[Any]:
    """The kind that read this control."""
    return next(kind for kind in KINDS if control.tag in kind.tags)


def kind_of_region(type_: Any) -> ControlKind[Any] | None:
    """The kind that makes regions of this type; None for those that aren't ours."""
    return next((kind for kind in KINDS if type_ in kind.region_types), None)
