"""What the kinds have in common whose regions belong to a whole image: they may be people's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.kind import ControlKind, Found, Part, Point
from yolo_backend.labels.tags import Tag

WANTS_PREDICTIONS = ("score_threshold", "predicted_values")
"""What asks for predictions, beside all attributes whose names begin with `model_`."""


@dataclass(frozen=True)
class WholeImageControl(Control):
    """It `is_asked_for` if an attribute says so; with `is_per_item`, each page of a `valueList` has its own region."""

    is_asked_for: bool = False
    is_per_item: bool = False


WholeT = TypeVar("WholeT", bound=WholeImageControl)


class WholeImageKind(ControlKind[WholeT]):
    """Its regions are no places, and belong to no single find."""

    is_by_box = False
    is_of_whole_image = True

    def is_left_to_people(self, tag: Tag) -> bool:
        """What is about a region, or about no image, is people's own."""
        return tag.own_attributes.get("perregion", "").lower() == "true" or not tag.image_tags

    def is_asked_for(self, control: WholeT) -> bool:
        """Returns True if an attribute asks for predictions."""
        return control.is_asked_for

    def why_not_served(self, tag: Tag) -> str | None:
        """Why the tag can't be served."""
        return tag.why_not_on_image()

    def make_parts(self, control: WholeT, found: Found) -> list[list[Part]]:
        """None: all is said in `make_whole`."""
        return [[] for _ in found.indices]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """None: it has no shape."""
        return []

    def ingredients(self, control: WholeT) -> dict[str, Any]:
        """Also whether each page is looked at alone."""
        return {**super().ingredients(control), **({"per_item": control.is_per_item} if control.is_list else {})}


def asks(tag: Tag) -> bool:
    """Returns True if the tag, or one of those inside of it, has an attribute that asks for predictions."""
    inside = [each.attr for each in (tag.element.labels_attrs or {}).values()]
    names = {name.lower() for attributes in (tag.element.attr, *inside) for name, text in attributes.items() if text}
    return any(name.startswith("model_") or name in WANTS_PREDICTIONS for name in names)


def is_per_item(tag: Tag) -> bool:
    """Returns True if each image of a list has a region of its own."""
    return tag.own_attributes.get("peritem", "").lower() == "true"


def best_of_labels(found: Found) -> dict[str, float]:
    """The highest score of each label that was found, the best one first."""
    best: dict[str, float] = {}
    for index, label in zip(found.indices, found.labels, strict=True):
        best.setdefault(label, float(found.detections.scores[index]))
    return best
