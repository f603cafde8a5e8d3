"""Boxes below the thresholds: how they are asked for, and which boxes the server would show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.labels.regions import region_label, task_score
from yolo_backend.protocol import Prediction, Region


def lower_thresholds(plan: ProjectPlan, floor: float) -> ProjectPlan:
    """The same plan, for boxes down to the floor. Lower boxes change nothing about those above them."""
    return replace(plan, controls=tuple(served.lowered(floor) for served in plan.controls))


def as_served(prediction: Prediction, plan: ProjectPlan) -> Prediction:
    """A prediction with boxes down to a floor, as the server gives it: only boxes above the plan's thresholds."""
    threshold_of = thresholds(plan)
    # By the id, because a box may be two regions: its place and its label.
    served = {
        region["id"]
        for region in prediction["result"]
        if region_label(region) is not None and region["score"] > threshold_of(region)
    }
    regions = [region for region in prediction["result"] if region["id"] in served]
    return {**prediction, "result": regions, "score": task_score(regions)}


def thresholds(plan: ProjectPlan) -> Callable[[Region], float]:
    """The threshold of a region's label by the plan; the control's own if labels come with the tasks."""
    of_control = {served.control.from_name: _lowest_of(served) for served in plan.controls}
    of_label = {
        (served.control.from_name, label): served.label_map.threshold_of_class[number]
        for served in plan.controls
        for number, label in served.label_map.label_of_class.items()
    }

    def threshold_of(region: Region) -> float:
        name = region["from_name"]
        return of_label.get((name, region_label(region) or ""), of_control[name])

    return threshold_of


def lowest_threshold(plan: ProjectPlan) -> float:
    """The lowest threshold of any label."""
    return min(_lowest_of(served) for served in plan.controls)


def _lowest_of(served: ServedControl) -> float:
    of_classes = served.label_map.threshold_of_class.values()
    return min(of_classes) if of_classes else served.own_threshold
