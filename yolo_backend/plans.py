"""How a labeling config is served: by which weights, which class becomes which label, and the `model_version`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo_backend.detection.batching import ModelPool
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labeling import Control, LabelingConfigError, LabelMap, map_labels, parse_labeling_config
from yolo_backend.settings import Settings

# Part of every model_version: to be raised when code, ours or yours, changes what is predicted.
REVISION = 1


@dataclass(frozen=True)
class ServedControl:
    """A control, the weights that serve it, and what their classes are called in it."""

    control: Control
    weights: WeightsInfo
    weights_name: str
    label_map: LabelMap


@dataclass(frozen=True)
class ProjectPlan:
    """How a labeling config is served, and the `model_version` of what comes out."""

    controls: tuple[ServedControl, ...]
    model_version: str


def make_plan(label_config: str, settings: Settings, pool: ModelPool, wait_s: float | None = 0) -> ProjectPlan:
    """How this labeling config is served.

    Raises LabelingConfigError for a config that can't be, WeightsError for weights that can't be had, and
    WeightsLoadingError where they weren't read within `wait_s` (None: wait as long as it takes).
    """
    ends_at = None if wait_s is None else time.monotonic() + wait_s
    served = []
    for control in parse_labeling_config(label_config):
        name = control.model_path or settings.model_name
        if wait_s == 0:
            weights = pool.info(name)
        else:
            left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            weights = pool.wait_for_info(name, left_s)
        if control.needs_obb and weights.task != "obb":
            raise LabelingConfigError(f'model_obb="true" wants OBB weights: {name} are {weights.task} weights')
        label_map = map_labels(control, weights.class_names, settings.model_score_threshold)
        served.append(ServedControl(control, weights, name, label_map))
    if not any(item.label_map.label_of_class for item in served):
        raise LabelingConfigError(_nothing_matches(served))
    return ProjectPlan(tuple(served), _model_version(served, settings))


def _model_version(served: Sequence[ServedControl], settings: Settings) -> str:
    ingredients = [
        {
            "revision": REVISION,
            "weights": item.weights.fingerprint,
            "image_size": item.weights.image_size,
            "iou_threshold": settings.model_iou_threshold,
            "max_detections": settings.model_max_detections,
            # Only where it isn't the default, whose versions stay as they are.
            **({"decode": settings.decode} if settings.decode != "full" else {}),
            "control": [item.control.from_name, item.control.to_name, item.control.data_key, item.control.is_list],
            "labels": sorted(item.label_map.label_of_class.items()),
            "thresholds": sorted(item.label_map.threshold_of_class.items()),
        }
        for item in served
    ]
    name = Path(served[0].weights_name).stem
    # With the name, for Label Studio finds a version in any that it is a part of: `best-...` in `cells-best-...`.
    digest = hashlib.sha256(json.dumps([name, ingredients], sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


def _nothing_matches(served: Sequence[ServedControl]) -> str:
    labels = list(dict.fromkeys(label for item in served for label in item.label_map.labels_without_class))
    weights = ", ".join(dict.fromkeys(item.weights_name for item in served))
    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    if not labels:
        return "The RectangleLabels have no Label"
    return f"None of the labels {shown} is a class of {weights}"
