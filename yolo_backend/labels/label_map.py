"""The label map: which class of the weights becomes which label of a control, and at which threshold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from yolo_backend.labels.control import Control, Label

ControlT = TypeVar("ControlT", bound=Control)


@dataclass(frozen=True)
class PointLabel:
    """The label of a key point: `threshold` is for its box's score, `point_threshold` for its own."""

    label: str
    threshold: float
    point_threshold: float


@dataclass(frozen=True)
class LabelMap:
    """Which class becomes which label, and what has no partner.

    `label_of_class` and `threshold_of_class` go by the class's number in the weights, `label_of_point` by that and the
    number of one of its key points.
    """

    label_of_class: Mapping[int, str] = field(default_factory=dict)
    threshold_of_class: Mapping[int, float] = field(default_factory=dict)
    labels_without_class: tuple[str, ...] = ()
    classes_without_label: tuple[str, ...] = ()
    label_of_point: Mapping[tuple[int, int], PointLabel] = field(default_factory=dict)

    @property
    def lowest_threshold(self) -> float:
        """The threshold to give to the model: nothing below it is wanted."""
        return min(self.threshold_of_class.values(), default=1.0)


def map_labels(
    control: Control,
    class_names: Mapping[int, str],
    default_threshold: float,
    trained_thresholds: Mapping[str, float] | None = None,
) -> LabelMap:
    """Pair the classes of the weights with the labels of a control.

    `predicted_values` come first, then the labels' names; each first exact, then blind to case, spaces, `_` and `-`,
    but not where the very name is a class: then another class that is like it is another thing. Where two labels claim
    a class, the one that stands first has it.

    A label's threshold is its own, else the control's, else the trained model's for its class (the lowest of several),
    else the default.
    """
    classes = set(class_names.values())

    def alike(names: Iterable[str]) -> list[str]:
        return [key for name in names if name not in classes and (key := folded(name))]

    claims = [
        _claims(control.labels, lambda label: label.predicted_values),
        _claims(control.labels, lambda label: alike(label.predicted_values)),
        _claims(control.labels, lambda label: label.names),
        _claims(control.labels, lambda label: [] if classes & set(label.names) else alike(label.names)),
    ]
    label_of_class: dict[int, Label] = {}
    for class_id, class_name in class_names.items():
        names = (class_name, folded(class_name), class_name, folded(class_name))
        for claim, name in zip(claims, names, strict=True):
            if name in claim:
                label_of_class[class_id] = claim[name]
                break
    thresholds = _thresholds(control, label_of_class, class_names, default_threshold, trained_thresholds or {})
    served = {label.value for label in label_of_class.values()}
    return LabelMap(
        label_of_class={class_id: label.value for class_id, label in sorted(label_of_class.items())},
        threshold_of_class={class_id: thresholds[label] for class_id, label in sorted(label_of_class.items())},
        labels_without_class=tuple(label.value for label in control.labels if label.value not in served),
        classes_without_label=tuple(name for number, name in class_names.items() if number not in label_of_class),
    )


def _thresholds(
    control: Control,
    label_of_class: Mapping[int, Label],
    class_names: Mapping[int, str],
    default: float,
    trained: Mapping[str, float],
) -> dict[Label, float]:
    """The threshold of each label; all classes of a label have the same."""
    of_classes: dict[Label, list[float]] = {}
    for class_id, label in label_of_class.items():
        of_classes.setdefault(label, []).append(trained.get(class_names[class_id], default))
    return {
        label: control.threshold(min(those)) if label.score_threshold is None else label.score_threshold
        for label, those in of_classes.items()
    }


def by_name(control: ControlT) -> ControlT:
    """The control as weights that were trained for its project know it: their classes are its labels.

    `predicted_values` are about the base. With them, a label could claim the class of another one; and with a name that
    is another one's value, as an alias can be, or the last part of a path.
    """
    values = {label.value for label in control.labels}
    return replace(
        control,
        labels=tuple(
            replace(
                label,
                predicted_values=(),
                names=tuple(name for name in label.names if name == label.value or name not in values),
            )
            for label in control.labels
        ),
    )


def _claims(labels: Iterable[Label], names_of: Callable[[Label], Iterable[str]]) -> dict[str, Label]:
    claims: dict[str, Label] = {}
    for label in labels:
        for name in names_of(label):
            claims.setdefault(name, label)
    return claims


def folded(name: str) -> str:
    """A name without what makes no difference: case, spaces, `_` and `-`."""
    return re.sub(r"[\s_-]+", "", name).casefold()
