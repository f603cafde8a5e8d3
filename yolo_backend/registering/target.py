"""Chooses the control for which new tasks are made."""

from __future__ import annotations

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.messages import shortened

_MAX_NAMES = 200


def choose_controls(label_config: str, name: str | None, *, for_labels: bool) -> tuple[Control, ...]:
    """The controls that labels may become regions of: that of this name, or one of each kind on the only image.

    New tasks are made for the first. Raises LabelingConfigError.
    """
    if name is None and for_labels:
        controls = parse_labeling_config(label_config).controls
        has_own_labels = any(control.labels_value for control in controls)
        is_one_image = len({(control.to_name, control.value) for control in controls}) == 1
        # What belongs to the whole image is no object's, but Label Studio's own export may have it.
        of_objects = [control for control in controls if not kind_of(control).is_of_whole_image]
        if not has_own_labels and is_one_image and len({control.tag for control in of_objects}) == len(of_objects):
            return tuple(sorted(controls, key=lambda control: kind_of(control).is_of_whole_image))
    return (choose_control(label_config, name, for_labels=for_labels),)


def choose_control(label_config: str, name: str | None, *, for_labels: bool) -> Control:
    """The control of this name, or the only one. If no labels come along, any control of the only image will do.

    With labels, it is one whose regions are those of objects.

    Raises LabelingConfigError.
    """
    controls = parse_labeling_config(label_config).controls
    of_objects = tuple(control for control in controls if not kind_of(control).is_of_whole_image)
    if for_labels and not of_objects:
        raise LabelingConfigError(
            "The labeling config has no control for objects, which labels to register are of: write RectangleLabels"
        )
    by_box = tuple(control for control in controls if kind_of(control).is_by_box)
    if for_labels:
        controls = of_objects
    elif name is None and by_box:
        controls = by_box
    names = shortened(", ".join(dict.fromkeys(control.from_name for control in controls)), _MAX_NAMES)
    if name is not None:
        found = [control for control in controls if control.from_name == name]
        if not found:
            raise LabelingConfigError(
                f'The labeling config has no control "{shortened(name)}" that is served, but {names}'
            )
        controls = tuple(found)
    if controls[0].labels_value:
        raise LabelingConfigError(
            f'"{controls[0].from_name}" has the labels that come with each task ({controls[0].labels_value}), which a '
            "task made here wouldn't have: import tasks that have them"
        )
    if name is None and len(controls) > 1 and (for_labels or len({control.value for control in controls}) > 1):
        raise LabelingConfigError(f"The labeling config has several controls: give --control, one of {names}")
    return controls[0]
