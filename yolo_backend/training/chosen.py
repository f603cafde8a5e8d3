"""What people chose for each image of a task, as the trainer reads it: a box around all of it for each choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.choices import Choices, ChoicesControl, Taxonomy
from yolo_backend.labels.task_values import find_value
from yolo_backend.messages import shortened
from yolo_backend.training.annotations import (
    NO_LABEL,
    UNKNOWN_LABEL,
    Drawn,
    ImageKey,
    Region,
    labels_of,
    origin_of,
)
from yolo_backend.training.labelled import LabelledBox

# Why an image isn't trained on.
NO_CHOICE = "nothing was chosen"
OF_SEVERAL = (
    'what was chosen is about all images of its task, and a model learns from single ones: write perItem="true" in the '
    "labeling config, and choose for each"
)
# Why a choice isn't; `choices` stands before it.
NO_PAGE = "for no single image of their task"

ANY_PAGE = -1
"""The page of a choice that says none, where there are several."""

_KINDS: Mapping[str, Any] = {"choices": Choices(), "taxonomy": Taxonomy()}


def of_several_images(control: Control, data: Any) -> int:
    """How many images the task has that are chosen for together; 0 if each is chosen for by itself."""
    is_per_item = isinstance(control, ChoicesControl) and control.is_per_item
    pages = _pages_of(control, data)
    return pages if pages > 1 and not is_per_item else 0


def choices_by_image(
    annotation: Mapping[str, Any], controls: Sequence[Control], data: Any
) -> dict[ImageKey, list[tuple[Region, Control]]]:
    """The annotation's choices that are of these controls, by the image that they are about."""
    found: dict[ImageKey, list[tuple[Region, Control]]] = {}
    for region in annotation["result"] or []:  # null, if a script stored it so
        control = _control_of(region, controls)
        if control is not None:
            page = region.get("item_index")
            if not isinstance(page, int):
                page = ANY_PAGE if _pages_of(control, data) > 1 else 0
            found.setdefault((control.to_name, page), []).append((region, control))
    return found


def read_chosen(regions: Sequence[tuple[Region, Control]], data: Any, size_wh: tuple[int, int]) -> Drawn:
    """What was chosen for one image; `data` is the task's, `size_wh` the upright image's size."""
    width, height = size_wh
    boxes: dict[str, LabelledBox] = {}
    faults: list[str] = []
    for region, control in regions:
        known = labels_of(control, data)
        chosen: list[str] = _KINDS[control.tag].chosen(control, region)
        for label in chosen:
            if label not in known:
                faults.append(UNKNOWN_LABEL.format(shortened(label)))
                continue
            origin = origin_of(region)
            place = (width / 2, height / 2, float(width), float(height), 0.0)
            boxes.setdefault(label, LabelledBox(label, (0.0, 0.0, float(width), float(height)), place, origin))
        if not chosen:
            faults.append(NO_LABEL)
    return Drawn(tuple(boxes.values()), tuple(faults))


def for_one_model(controls: Sequence[Control]) -> list[Control]:
    """Of several that say what an image is, those that ask for predictions; the others are people's own then."""

    def asks(control: Control) -> bool:
        return isinstance(control, ChoicesControl) and control.is_asked_for

    asked = {control.value for control in controls if asks(control)}
    return [control for control in controls if asks(control) or control.value not in asked]


def rivals(controls: Sequence[Control]) -> tuple[Control, Control] | None:
    """Two that say what the same image is, of which one model can learn only one; None without such."""
    return next(
        (
            (one, other)
            for one, other in combinations(controls, 2)
            if one.value == other.value and one.from_name != other.from_name
        ),
        None,
    )


def _pages_of(control: Control, data: Any) -> int:
    pages = find_value(data, control.value) if control.is_list else None
    return len(pages) if isinstance(pages, list) else 1


def _control_of(region: Region, controls: Sequence[Control]) -> Control | None:
    names = (region.get("from_name"), region.get("to_name"), region.get("type"))
    return next((each for each in controls if (each.from_name, each.to_name, each.tag) == names), None)
