"""What a kind of control has to know: all that differs from one tag to another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, Protocol, TypedDict, TypeVar

from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.label_map import LabelMap, by_name, map_labels
from yolo_backend.labels.tags import Tag
from yolo_backend.protocol import Region

Point = tuple[float, float]
ControlT = TypeVar("ControlT", bound=Control)


@dataclass(frozen=True)
class Found:
    """What was found in an image for the labels of a control.

    `indices` are the wanted ones of the `detections`, best score first, and `labels` are theirs, by the `label_map`.
    `size_wh` is the upright image's, in pixels.
    """

    detections: Detections
    indices: Sequence[int]
    labels: Sequence[str]
    size_wh: tuple[int, int]
    label_map: LabelMap = field(default_factory=LabelMap)


class Part(TypedDict):
    """What a kind says of a region. The rest is the same for every kind, also `id` and `score` if a part has none."""

    from_name: str
    type: str
    value: dict[str, Any]
    id: NotRequired[str]
    score: NotRequired[float]
    parentID: NotRequired[str]
    meta: NotRequired[dict[str, Any]]


class ControlKind(Protocol[ControlT]):
    """A kind of control: a class in a file of its own, which inherits this one, and an entry in `table.py`.

    `tags` are the tags that it reads, `region_types` the types of the regions that it makes; both belong to no other
    kind. With `is_by_box`, each box becomes regions of its own that have its score, also a box of imported labels. With
    `is_of_whole_image`, its regions are `make_whole`'s.
    """

    tags: frozenset[str]
    region_types: frozenset[str]
    is_by_box: bool = True
    is_of_whole_image: bool = False

    def attributes(self, tag: Tag) -> Mapping[str, str]:
        """The attributes of the control; other tags may hold some of them."""
        attributes: Mapping[str, str] = tag.element.attr
        return attributes

    def is_left_to_people(self, tag: Tag) -> bool:
        """Returns True if the tag doesn't ask for predictions, so that nothing is to be said about it."""
        return False

    def why_not_served(self, tag: Tag) -> str | None:
        """Why the tag can't be served, in a sentence that names it; None if it can, or if nothing is to be said."""
        return tag.why_not_on_image()

    def read(self, tag: Tag, image_tag: Any) -> ControlT:
        """The control on one of the tag's images. Raises LabelingConfigError."""
        ...

    def is_asked_for(self, control: ControlT) -> bool:
        """Returns True if it is to be said why the weights can't serve it; otherwise it may be people's own."""
        return True

    def takes_over(self, control: ControlT) -> frozenset[str]:
        """The names of other controls that hold a part of its regions: where it is served, they are so by it only."""
        return frozenset()

    def check_weights(self, control: ControlT, weights: WeightsInfo, name: str) -> None:
        """Raises LabelingConfigError if these weights, called `name`, can't serve the control."""

    def map_labels(self, control: ControlT, weights: WeightsInfo, default_threshold: float) -> LabelMap:
        """Which class of the weights becomes which label of the control, and at which threshold."""
        return map_labels(control, weights.class_names, default_threshold, weights.thresholds)

    def why_unmatched(self, control: ControlT, weights: WeightsInfo, name: str) -> str | None:
        """Why labels have no class in these weights, called `name`, and what to do; None where it is by their names."""
        return None

    def trained_with(self, control: ControlT) -> frozenset[str]:
        """The kinds of weights that can learn from what people draw with it; none, if models aren't trained on that."""
        return frozenset()

    def as_trained(self, control: ControlT) -> ControlT:
        """The control as weights that were trained for its project know it: by the names of its labels."""
        return by_name(control)

    def wants_masks(self, control: ControlT, weights: WeightsInfo) -> bool:
        """Returns True if masks are to be made for it of what these weights find, which takes time and memory."""
        return False

    def make_parts(self, control: ControlT, found: Found) -> list[list[Part]]:
        """For each of `found.indices` the regions that it becomes; none if nothing of it is on the image.

        Imported labels come as detections, too: with boxes, and with masks or key points where somebody drew such. So
        regions are also made of boxes alone.
        """
        ...

    def make_whole(self, control: ControlT, found: Found) -> list[Part]:
        """The regions that belong to the image and to no single find, such as a choice or a number, with a score."""
        return []

    def of_all_pages(self, control: ControlT, regions: Sequence[Region]) -> list[Region]:
        """What the regions of the pages of a `valueList` are together, best score first; by itself each stays."""
        return list(regions)

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """How a region is drawn on a picture of this size: closed lines through these points, in pixels.

        Regions may be anybody's: no line is drawn of one that is malformed or has no shape.
        """
        ...

    def texts(self, region: Mapping[str, Any]) -> list[str]:
        """What is written on a picture of a region that has no shape. Regions may be anybody's."""
        return []

    def counts(self, region: Mapping[str, Any]) -> bool:
        """Returns True if the region is one of what was found, and not a part of another one.

        Regions that share an id are counted once in any case.
        """
        return True

    def ingredients(self, control: ControlT) -> dict[str, Any]:
        """What the `model_version` depends on for this kind. Nothing else may change it."""
        return {"tag": control.tag}


def value_of(region: Mapping[str, Any]) -> Mapping[str, Any]:
    """The value of a region, which may be anybody's: empty where it has none."""
    value = region.get("value")
    return value if isinstance(value, Mapping) else {}


def new_ids(count: int) -> list[str]:
    """So many ids for regions, different from all others."""
    digits = os.urandom(5 * count).hex()
    return [digits[start : start + 10] for start in range(0, len(digits), 10)]
