"""What a model learns of a control: which classes it has, and which classes of other weights are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from yolo_backend.labels.control import Control, Label
from yolo_backend.labels.controls.keypoint_classes import LearntPoints
from yolo_backend.labels.controls.keypoints import KeyPointControl
from yolo_backend.labels.label_map import LabelMap, map_labels
from yolo_backend.training.labelled import LabelledImage


def learnt_labels(control: Control) -> tuple[Label, ...]:
    """The classes of a model that learns from the control: its labels; of key points the things that have them."""
    return LearntPoints.of(control).classes if isinstance(control, KeyPointControl) else control.labels


def map_classes(control: Control, class_names: Mapping[int, str], threshold: float) -> LabelMap:
    """Which class of some weights is which class of the model; `control` has the model's classes as its labels.

    A label without names is the class of that name, or else all classes, as key points that name none are those of all.
    """
    names = tuple(class_names.values())
    labels = tuple(
        label if label.names else replace(label, names=(label.value,) if label.value in names else names)
        for label in control.labels
    )
    return map_labels(replace(control, labels=labels), class_names, threshold)


def undrawn_points(controls: Iterable[Control], images: Iterable[LabelledImage]) -> list[str]:
    """The labels of key points that nobody drew in any thing of these images."""
    drawn = {
        (box.label, number)
        for image in images
        for box in image.boxes
        for number, point in enumerate(box.points)
        if point is not None
    }
    learnt = [LearntPoints.of(each) for each in controls if isinstance(each, KeyPointControl)]
    labels = [
        label
        for each in learnt
        for label, number in each.number_of_point.items()
        if not any((name, number) in drawn for name in each.classes_of_point[label])
    ]
    return list(dict.fromkeys(labels))


def count_points(controls: Iterable[Control]) -> int:
    """How many key points a model needs that learns from these controls; 0 if they have none."""
    of_each = (LearntPoints.of(each).points for each in controls if isinstance(each, KeyPointControl))
    return max(of_each, default=0)
