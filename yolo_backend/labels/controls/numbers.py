"""`<Number model_count="car, truck">` on an `<Image>`: how many boxes of these classes are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Label
from yolo_backend.labels.controls.kind import Found, Part, value_of
from yolo_backend.labels.controls.whole_image import WholeImageControl, WholeImageKind, is_per_item
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.tags import Tag, read_fields, read_number, split_names
from yolo_backend.messages import shortened
from yolo_backend.protocol import Region

_NEARLY = 1e-8


@dataclass(frozen=True)
class NumberControl(WholeImageControl):
    """Its labels are the classes that are counted. Numbers are from `least` to `most`, in steps of `step`."""

    least: float | None = None
    most: float | None = None
    step: float | None = None
    tag: str = field(kw_only=True, default="number")

    def takes(self, number: int) -> bool:
        """Returns True if Label Studio's page lets a person submit this number."""
        if self.least is not None and number < self.least:
            return False
        if self.most is not None and number > self.most:
            return False
        if not self.step:
            return True
        steps = (number - (self.least or 0)) / self.step
        return abs(steps - round(steps)) * self.step <= _NEARLY


class Numbers(WholeImageKind[NumberControl]):
    """Reads `<Number>` with `model_count`."""

    tags = frozenset({"number"})
    region_types = frozenset({"number"})

    def is_left_to_people(self, tag: Tag) -> bool:
        """Also if it doesn't say what to count."""
        return super().is_left_to_people(tag) or not split_names(tag.element.attr.get("model_count", ""))

    def read(self, tag: Tag, image_tag: Any) -> NumberControl:
        """The control on one of its images."""
        attributes, own = self.attributes(tag), tag.own_attributes
        fields = read_fields(tag, image_tag, attributes)
        counted = dict.fromkeys(split_names(attributes["model_count"]))
        fields["labels"] = tuple(Label(name, (name,), (name,)) for name in counted)
        fields["labels_value"] = None
        least, most, step = (read_number(own, name, tag.shown) for name in ("min", "max", "step"))
        return NumberControl(
            **fields, is_asked_for=True, is_per_item=is_per_item(tag), least=least, most=most, step=step
        )

    def check_weights(self, control: NumberControl, weights: WeightsInfo, name: str) -> None:
        """What isn't found one by one can't be counted."""
        if not weights.finds_places:
            raise LabelingConfigError(
                f'Number "{shortened(control.from_name, 40)}" counts boxes, and {name} are {weights.kind} weights, '
                "which find none: name others"
            )

    def make_whole(self, control: NumberControl, found: Found) -> list[Part]:
        """One region, with the mean score of what was counted; without it where nothing was."""
        part: Part = {
            "from_name": control.from_name,
            "type": "number",
            "value": {"number": len(found.indices)},
        }
        if found.indices:
            part["score"] = float(found.detections.scores[list(found.indices)].mean())
        is_one_of_several = control.is_list and not control.is_per_item
        return [part] if is_one_of_several or control.takes(len(found.indices)) else []

    def of_all_pages(self, control: NumberControl, regions: Sequence[Region]) -> list[Region]:
        """The sum."""
        if control.is_per_item or not regions:
            return list(regions)
        number = sum(region["value"]["number"] for region in regions)
        region = {**regions[0], "value": {"number": number}}
        if number:
            scores = [region["value"]["number"] * region.get("score", 0.0) for region in regions]
            region["score"] = sum(scores) / number
        region.pop("item_index", None)
        return [region] if control.takes(number) else []  # type: ignore[list-item]

    def texts(self, region: Mapping[str, Any]) -> list[str]:
        """The number with the control's name."""
        number = value_of(region).get("number")
        return [f"{region.get('from_name')}: {number}"] if isinstance(number, int | float) else []

    def ingredients(self, control: NumberControl) -> dict[str, Any]:
        """Which numbers there may be."""
        return {**super().ingredients(control), "numbers": [control.least, control.most, control.step]}
