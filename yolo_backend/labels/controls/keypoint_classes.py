"""What a model learns of `<KeyPointLabels>`: the classes of the things, and which of their points a label is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Label
from yolo_backend.labels.controls.keypoints import KeyPointControl, points_of
from yolo_backend.labels.label_map import folded, map_labels

ONLY_CLASS = "object"
"""The class of all things, where neither the points nor the boxes say what they belong to."""

_REMEMBERED = 64  # controls, of which each is asked for again with each image


@dataclass(frozen=True)
class LearntPoints:
    """The `classes` of a model that learns from the control, as labels: `predicted_values` are the classes of other
    weights that are the same thing, and one without `names` is all of them.

    `class_of_box` goes by the labels of the boxes, `classes_of_point` by those of the points; `number_of_point` has the
    number of each of these.
    """

    classes: tuple[Label, ...]
    class_of_box: Mapping[str, str]
    classes_of_point: Mapping[str, frozenset[str]]
    number_of_point: Mapping[str, int]

    @property
    def points(self) -> int:
        """How many points a thing has, at least."""
        return max(self.number_of_point.values(), default=-1) + 1

    @classmethod
    def of(cls, control: KeyPointControl) -> LearntPoints:
        """What the control says; a model with these classes serves it by the same label map as any other."""
        return _learnt(control)


@lru_cache(maxsize=_REMEMBERED)
def _learnt(control: KeyPointControl) -> LearntPoints:
    classes = _classes(control)
    names = dict(enumerate(each.value for each in classes))
    numbers = {label.value: label.model_index for label in control.labels if label.model_index is not None}
    weights = WeightsInfo("", "pose", names, "", (0, 0), points=max(numbers.values(), default=-1) + 1)
    label_of_point = points_of(control, weights, 0.0)
    label_of_box = map_labels(replace(control, labels=control.box_labels), names, 0.0).label_of_class
    if len(classes) == 1 and not classes[0].names:
        label_of_box = dict(enumerate(label.value for label in control.box_labels))
    class_of_box: dict[str, str] = {}
    for number, label in label_of_box.items():
        class_of_box.setdefault(label, names[number])
    return LearntPoints(
        classes,
        class_of_box,
        {
            label: frozenset(names[number] for (number, _), point in label_of_point.items() if point.label == label)
            for label in numbers
        },
        numbers,
    )


def _classes(control: KeyPointControl) -> tuple[Label, ...]:
    """The names in the points' `predicted_values`, in their order; without any, the labels of the boxes.

    Names that all labels have together are one class, because nothing that people draw tells them apart.
    """
    numbered = [label for label in control.labels if label.model_index is not None]
    # As the label map does, blind to case: `Person` and `person` of two labels are one.
    spelled: dict[str, str] = {}
    for label in numbered:
        for name in label.predicted_values:
            spelled.setdefault(folded(name), name)
    if not spelled:
        return _classes_of_boxes(control)
    names = list(spelled.values())
    of_box = map_labels(replace(control, labels=control.box_labels), dict(enumerate(names)), 0.0).label_of_class
    alike: dict[tuple[str | None, frozenset[str]], list[str]] = {}
    for number, (key, name) in enumerate(spelled.items()):
        using = frozenset(label.value for label in numbered if key in map(folded, label.predicted_values))
        alike.setdefault((of_box.get(number), using), []).append(name)
    return tuple(
        Label(
            those[0],
            (those[0],),
            tuple(those),
            _threshold(control, [label for label in numbered if label.value in using]),
        )
        for (_, using), those in alike.items()
    )


def _classes_of_boxes(control: KeyPointControl) -> tuple[Label, ...]:
    threshold = _threshold(control, [label for label in control.labels if label.model_index is not None])
    boxes = control.box_labels
    if len(boxes) > 1 or any(label.predicted_values for label in boxes):
        return tuple(replace(label, score_threshold=threshold) for label in boxes)
    return (Label(boxes[0].value if boxes else ONLY_CLASS, (), (), threshold),)


def _threshold(control: KeyPointControl, labels: list[Label]) -> float | None:
    """A thing is shown with any of its points, so the lowest of theirs; None if one has none."""
    own = [control.score_threshold if label.score_threshold is None else label.score_threshold for label in labels]
    known = [threshold for threshold in own if threshold is not None]
    return min(known) if known and len(known) == len(own) else None
