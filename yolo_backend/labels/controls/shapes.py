"""What the kinds of controls that draw a shape around each find have in common; each kind's own file says the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.kind import ControlKind, Found, Part, new_ids
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.tags import Tag, read_fields
from yolo_backend.messages import shortened


@dataclass(frozen=True)
class ShapeControl(Control):
    """A control of shapes. With a `shape_name` they stand on that `<Rectangle>` or `<Polygon>`, their labels apart."""

    shape_name: str | None = None


@dataclass(frozen=True)
class Shape:
    """A region's value without its label, and what a person should know of it."""

    value: Mapping[str, Any]
    remark: str | None = None


ShapeControlT = TypeVar("ShapeControlT", bound=ShapeControl)


class ShapeLabels(ControlKind[ShapeControlT]):
    """Reads one tag, such as `<RectangleLabels>`, whose regions have a place and a label at once.

    `shape` is the tag's name without `labels`, in lower case, which is the tag of the same shape without a label.
    """

    shape: str
    control_type: type[ShapeControlT]

    def read(self, tag: Tag, image_tag: Any) -> ShapeControlT:
        """The control on one of the tag's images. Raises LabelingConfigError."""
        return self.read_named(tag, image_tag, self.attributes(tag), None)

    def read_named(
        self, tag: Tag, image_tag: Any, attributes: Mapping[str, str], shape_name: str | None
    ) -> ShapeControlT:
        """The control with these attributes, which may stand on two tags. Raises LabelingConfigError."""
        fields = read_fields(tag, image_tag, attributes)
        return self.control_type(**fields, shape_name=shape_name, **self.read_options(tag, attributes))

    def read_options(self, tag: Tag, attributes: Mapping[str, str]) -> dict[str, Any]:
        """The fields of the control that no other kind has. Raises LabelingConfigError."""
        return {}

    def check_weights(self, control: ShapeControlT, weights: WeightsInfo, name: str) -> None:
        """Most weights find boxes, but not those that only say what an image shows."""
        if weights.kind == "classify":
            raise LabelingConfigError(
                f'The control "{shortened(control.from_name, 40)}" wants weights that find things in an '
                f"image, and {name} are classify weights: name others in model_path"
            )

    def shapes(self, control: ShapeControlT, found: Found) -> Sequence[Sequence[Shape]]:
        """For each of `found.indices` its shapes; none if nothing of it is on the image."""
        raise NotImplementedError

    def make_parts(self, control: ShapeControlT, found: Found) -> list[list[Part]]:
        """A region for each shape.

        If one find has several shapes, each has an id of its own, and the first is the parent of the others.
        """
        return [
            self._parts_of_one(control, shapes, label)
            for shapes, label in zip(self.shapes(control, found), found.labels, strict=True)
        ]

    def counts(self, region: Mapping[str, Any]) -> bool:
        """A further shape of the same find isn't counted."""
        return "parentID" not in region

    def ingredients(self, control: ShapeControlT) -> dict[str, Any]:
        """The tag, and what its own attributes say."""
        return {**super().ingredients(control), **self.options(control)}

    def options(self, control: ShapeControlT) -> dict[str, Any]:
        """What the regions depend on beside the tag."""
        return {}

    def _parts_of_one(self, control: ShapeControlT, shapes: Sequence[Shape], label: str) -> list[Part]:
        parts: list[Part] = []
        ids = new_ids(len(shapes)) if len(shapes) > 1 else []
        for number, shape in enumerate(shapes):
            common: dict[str, Any] = {"id": ids[number]} if ids else {}
            if number:
                common["parentID"] = ids[0]
            if shape.remark:
                common["meta"] = {"text": [shape.remark]}
            for from_name, type_, value in self._regions(control, shape, label):
                parts.append({"from_name": from_name, "type": type_, "value": value, **common})  # type: ignore[typeddict-item]
        return parts

    def _regions(self, control: ShapeControlT, shape: Shape, label: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, type and value: of one region, or of two with one id, as the page stores labels beside a shape."""
        if control.shape_name is None:
            type_ = f"{self.shape}labels"
            return [(control.from_name, type_, {**shape.value, type_: [label]})]
        return [
            (control.shape_name, self.shape, dict(shape.value)),
            (control.from_name, "labels", {**shape.value, "labels": [label]}),
        ]
