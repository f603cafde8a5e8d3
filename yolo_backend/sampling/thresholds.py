"""Boxes below the thresholds: how they are asked for, and which boxes the server would show.

What isn't said of a single box, such as a choice, is asked for as the server gives it. Beside it stand the boxes by
which it is said, as rectangles of a control that no labeling config has: their scores tell how unsure it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from yolo_backend.labels.controls.rectangles import RectangleControl
from yolo_backend.labels.controls.table import kind_of, kind_of_region
from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.labels.regions import region_label, task_score
from yolo_backend.labels.sizes import bounded
from yolo_backend.protocol import Prediction, Region

_BESIDE = "\0"  # begins the names of those controls, and of no others


def lower_thresholds(plan: ProjectPlan, floor: float) -> ProjectPlan:
    """The same plan, for boxes down to the floor. Lower boxes change nothing about those above them."""
    lowered = [(served if _is_by_box(served) else _as_boxes(served)).lowered(floor) for served in plan.controls]
    as_they_are = [served for served in plan.controls if not _is_by_box(served)]
    return replace(plan, controls=(*lowered, *as_they_are))


def measured(regions: Sequence[Region], plan: ProjectPlan) -> list[Region]:
    """Those of a lowered plan's regions whose scores say how unsure it is: one for each thing, not for its parts."""
    return [
        region
        for region in _labelled(regions, plan)
        if (kind := kind_of_region(region["type"])) is None or kind.counts(region)
    ]


def shown(prediction: Prediction) -> Prediction:
    """A lowered plan's prediction without the boxes that only say how unsure it is, and no larger than may be kept."""
    regions, _ = bounded(_without_those_beside(prediction["result"]))
    return {**prediction, "result": regions}


def as_served(prediction: Prediction, plan: ProjectPlan) -> Prediction:
    """A prediction with boxes down to a floor, as the server gives it: only boxes above the plan's thresholds."""
    threshold_of = thresholds(plan)
    as_it_is = _names_as_served(plan)
    prediction = {**prediction, "result": _without_those_beside(prediction["result"])}
    # By the id, because a box may be two regions: its place and its label.
    served = {
        region["id"] for region in _labelled(prediction["result"], plan) if region["score"] > threshold_of(region)
    }
    above = [region for region in prediction["result"] if region["id"] in served or region["from_name"] in as_it_is]
    regions, _ = bounded(above)
    return {**prediction, "result": regions, "score": task_score(regions)}


def thresholds(plan: ProjectPlan) -> Callable[[Region], float]:
    """The threshold of a region's label by the plan; the control's own if labels come with the tasks."""
    controls = [served if _is_by_box(served) else _as_boxes(served) for served in plan.controls]
    of_control = {served.control.from_name: _lowest_of(served) for served in controls}
    of_label = {
        (served.control.from_name, label): served.label_map.threshold_of_class[number]
        for served in controls
        for number, label in served.label_map.label_of_class.items()
    }

    def threshold_of(region: Region) -> float:
        name = region["from_name"]
        return of_label.get((name, region_label(region) or ""), of_control[name])

    return threshold_of


def lowest_threshold(plan: ProjectPlan) -> float:
    """The lowest threshold of any label."""
    return min(_lowest_of(served) for served in plan.controls)


def _labelled(regions: Sequence[Region], plan: ProjectPlan) -> list[Region]:
    """The regions with a label that are made of boxes, and not as the server gives them."""
    as_served = _names_as_served(plan)
    return [region for region in regions if region["from_name"] not in as_served and region_label(region) is not None]


def _without_those_beside(regions: Sequence[Region]) -> list[Region]:
    return [region for region in regions if not region["from_name"].startswith(_BESIDE)]


def _lowest_of(served: ServedControl) -> float:
    of_classes = served.label_map.threshold_of_class.values()
    return min(of_classes) if of_classes else served.own_threshold


def _is_by_box(served: ServedControl) -> bool:
    return kind_of(served.control).is_by_box


def _names_as_served(plan: ProjectPlan) -> set[str]:
    """The controls whose regions come as the server gives them."""
    others = [served.control for served in plan.controls if not _is_by_box(served)]
    return {name for control in others for name in (control.from_name, *kind_of(control).takes_over(control))}


def _as_boxes(served: ServedControl) -> ServedControl:
    """The boxes by which its regions are made, as rectangles with the names of their classes."""
    control = served.control
    boxes = RectangleControl(
        from_name=_BESIDE + control.from_name,
        to_name=control.to_name,
        value=control.value,
        is_list=control.is_list,
        labels=control.labels,
        score_threshold=control.score_threshold,
        labels_value=control.labels_value,
    )
    names = {class_id: served.weights.class_names[class_id] for class_id in served.label_map.label_of_class}
    return replace(served, control=boxes, label_map=replace(served.label_map, label_of_class=names))
