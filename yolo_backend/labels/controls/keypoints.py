"""`<KeyPointLabels>` on an `<Image>`: the labelled key points of what was found, and the boxes around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Control, Label
from yolo_backend.labels.controls.kind import ControlKind, Found, Part, Point, new_ids, value_of
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.label_map import LabelMap, PointLabel, map_labels
from yolo_backend.labels.places import Place, are_numbers, places_of
from yolo_backend.labels.tags import MAX_INDEX, Tag, is_true, read_fields, read_index, read_number, read_threshold
from yolo_backend.messages import shortened

_POSE = "pose"
_BOXES = "_bbox"
_CROSS_SHARE = 0.008  # of the picture's longer side
_MAX_SIZE_PX = 10_000


@dataclass(frozen=True)
class KeyPointControl(Control):
    """With a `box_name`, boxes stand on that `<RectangleLabels>`, which has the `box_labels`.

    `point_threshold` is for the scores of points whose labels have none of their own.
    """

    point_threshold: float = 0.0
    point_size_px: float = 1.0
    box_name: str | None = None
    box_labels: tuple[Label, ...] = ()
    tag: str = field(kw_only=True, default="keypointlabels")


class KeyPointLabels(ControlKind[KeyPointControl]):
    """Reads `<KeyPointLabels>`, and the `<RectangleLabels>` of the same name and `_bbox`, if there is one.

    A label is for the point with its `model_index` of the classes in its `predicted_values`.
    """

    tags = frozenset({"keypointlabels"})
    region_types = frozenset({"keypointlabels"})
    is_by_box = False

    def read(self, tag: Tag, image_tag: Any) -> KeyPointControl:
        """The control on one of its images."""
        attributes = self.attributes(tag)
        size_px = read_number(
            attributes,
            "model_point_size",
            tag.shown,
            least=0,
            most=_MAX_SIZE_PX,
            expected="should be a number of pixels",
        )
        fields = read_fields(tag, image_tag, attributes)
        _check_indices(tag)
        has_boxes = is_true({"model_add_bboxes": "true", **attributes}, "model_add_bboxes")
        boxes = _boxes_of(tag, image_tag) if has_boxes else None
        return KeyPointControl(
            **fields,
            point_threshold=read_threshold(attributes, "model_point_threshold", tag.shown) or 0.0,
            point_size_px=1.0 if size_px is None else size_px,
            box_name=boxes["from_name"] if boxes else None,
            box_labels=boxes["labels"] if boxes else (),
        )

    def takes_over(self, control: KeyPointControl) -> frozenset[str]:
        """The control of its boxes."""
        return frozenset({control.box_name} if control.box_name else ())

    def check_weights(self, control: KeyPointControl, weights: WeightsInfo, name: str) -> None:
        """Only pose weights find key points."""
        if weights.kind != _POSE:
            raise LabelingConfigError(
                f'KeyPointLabels "{shortened(control.from_name, 40)}" wants pose weights, and {name} are '
                f"{weights.kind} weights: name pose weights in model_path, or beside them in MODEL_NAME"
            )

    def map_labels(self, control: KeyPointControl, weights: WeightsInfo, default_threshold: float) -> LabelMap:
        """Each label's points; a class's label is that of its boxes, "" if they have none.

        A class's threshold is the lowest of its points' labels.
        """
        of_point = points_of(control, weights, default_threshold)
        boxes = _mapped(control, control.box_labels, weights, default_threshold)
        names, classes = weights.class_names, sorted({class_id for class_id, _ in of_point})
        shown = {point.label for point in of_point.values()}
        return LabelMap(
            label_of_class={number: boxes.label_of_class.get(number, "") for number in classes},
            threshold_of_class={
                number: min(point.threshold for (class_id, _), point in of_point.items() if class_id == number)
                for number in classes
            },
            labels_without_class=tuple(label.value for label in control.labels if label.value not in shown),
            classes_without_label=tuple(name for number, name in names.items() if number not in classes),
            label_of_point=of_point,
        )

    def as_trained(self, control: KeyPointControl) -> KeyPointControl:
        """As it is: the classes of a model that was trained for it are those that its labels name."""
        return control

    def trained_with(self, control: KeyPointControl) -> frozenset[str]:
        """Pose weights, on points that have a number; labels that come with the tasks are people's own."""
        return frozenset({_POSE} if any(label.model_index is not None for label in control.labels) else ())

    def why_unmatched(self, control: KeyPointControl, weights: WeightsInfo, name: str) -> str | None:
        """Each label needs the number of a point, and the weights have to have such a point."""
        if not weights.points:
            return (
                f"{name} doesn't say how many key points it finds, so none has a label: export it anew with "
                'Ultralytics, YOLO("best.pt").export(format="onnx")'
            )
        without = [label for label in control.labels if label.model_index is None]
        if without:
            return (
                f'{_first_of(without)} of KeyPointLabels "{shortened(control.from_name, 30)}" has no model_index: give '
                f"it the number of its key point in {name}, which has 0 to {weights.points - 1}"
            )
        beyond = [label for label in control.labels if (label.model_index or 0) >= weights.points]
        if beyond:
            return (
                f'{_first_of(beyond)} has the model_index="{beyond[0].model_index}", and {name} has the key points 0 '
                f"to {weights.points - 1}: write the number of one of them"
            )
        return None

    def make_parts(self, control: KeyPointControl, found: Found) -> list[list[Part]]:
        """The box, where the config has a control for it, and its points, which know it as their parent."""
        points_xy, scores = (found.detections.extras.get(name) for name in ("points_xy", "point_scores"))
        if points_xy is None or scores is None:  # imported labels, which have boxes only
            return [[] for _ in found.indices]
        places = places_of(found.detections, found.indices, found.size_wh)
        made: list[list[Part]] = []
        for number, (index, label, id_) in enumerate(
            zip(found.indices, found.labels, new_ids(len(found.indices)), strict=True)
        ):
            place = places[number] if label else None
            box = self._box(control, place, label, id_, number) if place else None
            points = self._points(control, found, index, id_, number, parent=bool(box))
            made.append([*([box] if box else []), *points])
        return made

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """A small cross."""
        value = value_of(region)
        if not are_numbers(value, "x", "y"):
            return []
        x, y = (value[key] / 100 * size for key, size in zip(("x", "y"), size_wh, strict=True))
        arm = max(2.0, _CROSS_SHARE * max(size_wh))
        return [[(x - arm, y), (x + arm, y)], [(x, y - arm), (x, y + arm)]]

    def counts(self, region: Mapping[str, Any]) -> bool:
        """The points of a thing are parts of it: of its box or, where it has none, of its first point."""
        return "parentID" not in region and not is_later_point(str(region.get("id")))

    def ingredients(self, control: KeyPointControl) -> dict[str, Any]:
        """Also how large points are, and where boxes go."""
        return {
            **super().ingredients(control),
            "point_size_px": control.point_size_px,
            **({"boxes": control.box_name} if control.box_name else {}),
        }

    def _box(self, control: KeyPointControl, place: Place, label: str, id_: str, number: int) -> Part:
        return {
            "id": id_,
            "from_name": str(control.box_name),
            "type": "rectanglelabels",
            "value": {**place, "rectanglelabels": [label]},
            "meta": _meta(number),
        }

    def _points(
        self, control: KeyPointControl, found: Found, index: int, id_: str, number: int, *, parent: bool
    ) -> list[Part]:
        detections, (width, height) = found.detections, found.size_wh
        class_id, box_score = int(detections.class_ids[index]), float(detections.scores[index])
        points_xy = detections.extras["points_xy"][index].tolist()
        scores = detections.extras["point_scores"][index].tolist()
        parts: list[Part] = []
        for position, ((x, y), score) in enumerate(zip(points_xy, scores, strict=True)):
            point = found.label_map.label_of_point.get((class_id, position))
            if point is None or box_score <= point.threshold or not score >= point.point_threshold:
                continue
            if not (0 <= x <= width and 0 <= y <= height):  # nor where it isn't a number
                continue
            part: Part = {
                "id": f"{id_}-{position}" if parent or parts else id_,
                "from_name": control.from_name,
                "type": "keypointlabels",
                "value": {
                    "x": x / width * 100,
                    "y": y / height * 100,
                    "width": control.point_size_px / width * 100,
                    "keypointlabels": [point.label],
                },
                "meta": _meta(number),
                "score": score,
            }
            if parent:
                part["parentID"] = id_
            parts.append(part)
        return parts


def points_of(
    control: KeyPointControl, weights: WeightsInfo, default_threshold: float
) -> dict[tuple[int, int], PointLabel]:
    """The label of each class's point, by the class's number and its own.

    One without `predicted_values` has the point where no other label has it.
    """
    found: dict[tuple[int, int], PointLabel] = {}
    for index in range(weights.points):
        mine = [label for label in control.labels if label.model_index == index]
        of_all = [
            replace(label, predicted_values=tuple(weights.class_names.values()))
            for label in mine
            if not label.predicted_values
        ]
        for labels in (mine, of_all):
            label_map = _mapped(control, labels, weights, default_threshold)
            for class_id, value in label_map.label_of_class.items():
                own = next(label.point_threshold for label in labels if label.value == value)
                point = PointLabel(
                    value, label_map.threshold_of_class[class_id], control.point_threshold if own is None else own
                )
                found.setdefault((class_id, index), point)
    return found


def _mapped(
    control: KeyPointControl, labels: Sequence[Label], weights: WeightsInfo, default_threshold: float
) -> LabelMap:
    known = replace(control, labels=tuple(labels))
    return map_labels(known, weights.class_names, default_threshold, weights.thresholds)


def _boxes_of(tag: Tag, image_tag: Any) -> Any:
    """The fields of the control for its boxes on this image; None where there is none."""
    name = f"{tag.element.name}{_BOXES}"
    for other in tag.tags:
        boxes = Tag(other, tag.tags, is_repeated=tag.is_repeated)
        if other.name == name and boxes.name == "rectanglelabels" and image_tag in boxes.image_tags:
            return read_fields(boxes, image_tag, {})
    return None


def _check_indices(tag: Tag) -> None:
    for value, label in (tag.element.labels_attrs or {}).items():
        index = label.attr.get("model_index")
        if index is not None and read_index(label.attr) is None:
            raise LabelingConfigError(
                f'model_index="{shortened(index.strip(), 20)}" of Label "{shortened(value, 40)}" should be the number '
                f"of a key point, from 0 to {MAX_INDEX}"
            )


def _first_of(labels: Sequence[Label]) -> str:
    more = f" (as {len(labels) - 1} more)" if len(labels) > 1 else ""
    return f'Label "{shortened(labels[0].value, 30)}"{more}'


def _meta(number: int) -> dict[str, Any]:
    """By what HumanSignal's example says which points belong together."""
    return {"text": [f"bbox-{number}"]}


def is_later_point(id_: str) -> bool:
    """Returns True for the ids of all points of a thing but its first region."""
    thing, _, position = id_.partition("-")
    return position.isdecimal() and len(thing) == len(new_ids(1)[0])
