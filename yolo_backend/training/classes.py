"""Which labels a model learns, and in which order: once it is fixed, labels are only appended."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from yolo_backend.training.labelled import LabelledImage


@dataclass(frozen=True)
class Classes:
    """The names of a model's classes, in their order.

    `order` is the record for the runs to come: all labels that the labeling config ever had. `without_box` are those
    of its labels that no training image has, which are left out.
    """

    names: tuple[str, ...]
    order: tuple[str, ...]
    without_box: tuple[str, ...]


def choose_classes(train: Iterable[LabelledImage], labels: Sequence[str], known: Sequence[str]) -> Classes:
    """The classes of a model that is trained on these images; `labels` are the config's, `known` the order so far.

    A label that the config has no longer keeps its place in the order, and is no class.
    """
    boxes = Counter(box.label for image in train for box in image.boxes)
    order = tuple(dict.fromkeys([*known, *labels]))
    wanted = [label for label in order if label in labels]
    return Classes(
        names=tuple(label for label in wanted if boxes[label]),
        order=order,
        without_box=tuple(label for label in wanted if not boxes[label]),
    )


def tells_sides(labels: Iterable[str]) -> bool:
    """Returns True if a label says left or right, so that a mirrored image would be labelled wrongly."""
    words = (word.lower() for label in labels for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", label))
    return not {"left", "right"}.isdisjoint(words)
