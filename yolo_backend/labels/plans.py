"""How a labeling config is served: by which weights, which class becomes which label, and the `model_version`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.views import WHOLE, view_for
from yolo_backend.detection.weights import WeightsError
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.label_map import LabelMap
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.tags import labels_of_task
from yolo_backend.messages import named, shortened, to_latin1
from yolo_backend.settings import Settings

UNTRAINED = "untrained"
"""The `model_version` of a plan that serves nothing yet."""

LABELLED_IMAGES = 40
"""So many a person should label before the first training: a quarter of them, ten, are needed to judge a model."""

# Part of every model_version: to be raised when code, ours or yours, changes what is predicted.
REVISION = 1
_SHOWN_NAMES, _SHOWN_CHARACTERS, _SHOWN_TOGETHER = 8, 30, 50


@dataclass(frozen=True)
class ServedLabel:
    """A label, the classes that become it, and the threshold of their scores."""

    label: str
    classes: tuple[str, ...]
    threshold: float


@dataclass(frozen=True)
class ServedControl:
    """A control, the weights that serve it, and what their classes are called in it.

    Where the labels come with each task, the map is empty until `for_task`; a threshold is then the label's own or
    `default_threshold`, and no higher than `highest_threshold`.
    """

    control: Control
    weights: WeightsInfo
    weights_name: str
    label_map: LabelMap
    default_threshold: float
    highest_threshold: float = 1.0

    @property
    def shown_weights(self) -> str:
        """The weights as a person knows them: by the name of their file."""
        return Path(self.weights_name).name

    def for_task(self, data: Any) -> ServedControl:
        """The same with the labels of a task, where they come with it. Raises LabelingConfigError."""
        if self.control.labels_value is None:
            return self
        control = replace(self.control, labels=labels_of_task(self.control, data))
        label_map = _label_map(control, self.weights, self.default_threshold)
        served = replace(self, control=control, label_map=label_map).lowered(self.highest_threshold)
        if not label_map.label_of_class:
            raise LabelingConfigError(_nothing_matches(served))
        return served

    @property
    def wants_masks(self) -> bool:
        """Returns True if masks are to be made for it."""
        return kind_of(self.control).wants_masks(self.control, self.weights)

    @property
    def own_threshold(self) -> float:
        """The threshold of labels that have none of their own."""
        return min(self.control.threshold(self.default_threshold), self.highest_threshold)

    @property
    def served_labels(self) -> list[ServedLabel]:
        """The labels that have a class, in the labeling config's order."""
        names = self.weights.class_names
        if self.label_map.label_of_point:
            return [
                ServedLabel(
                    label.value,
                    tuple(f"{names[class_id]}, point {index}" for (class_id, index), _ in those),
                    those[0][1].threshold,
                )
                for label in self.control.labels
                if (those := [item for item in self.label_map.label_of_point.items() if item[1].label == label.value])
            ]
        ids_of_label: dict[str, list[int]] = {}
        for class_id, label in self.label_map.label_of_class.items():
            ids_of_label.setdefault(label, []).append(class_id)
        return [
            ServedLabel(
                label=label.value,
                classes=tuple(names[class_id] for class_id in ids),
                threshold=self.label_map.threshold_of_class[ids[0]],
            )
            for label in self.control.labels
            if (ids := ids_of_label.get(label.value))
        ]

    def lowered(self, threshold: float) -> ServedControl:
        """The same, for boxes down to this score."""
        thresholds = {number: min(threshold, known) for number, known in self.label_map.threshold_of_class.items()}
        label_map = replace(self.label_map, threshold_of_class=thresholds)
        return replace(self, label_map=label_map, highest_threshold=min(threshold, self.highest_threshold))


@dataclass(frozen=True)
class ProjectPlan:
    """How a labeling config is served, what of it isn't, and the `model_version` of what comes out.

    `not_served` says so in sentences. `without_class` are those of it none of whose labels is a class of the weights
    yet: with labels of people, a training can begin there. Before it has, there may be a plan without `controls`.
    """

    controls: tuple[ServedControl, ...]
    model_version: str
    not_served: tuple[str, ...] = ()
    without_class: tuple[ServedControl, ...] = ()

    @property
    def is_untrained(self) -> bool:
        """Returns True if nothing is predicted before a model was trained and promoted."""
        return not self.controls

    def for_task(self, data: Any) -> tuple[ProjectPlan, list[str]]:
        """The same with the labels that a task brings, and why some of them, or a control, are left out.

        Raises LabelingConfigError where no control is left.
        """
        if all(served.control.labels_value is None for served in self.controls):
            return self, []
        controls: list[ServedControl] = []
        left_out: list[str] = []
        for served in self.controls:
            try:
                mine = served.for_task(data)
            except LabelingConfigError as error:
                left_out.append(str(error))
                continue
            controls.append(mine)
            if mine is not served and (unknown := mine.label_map.labels_without_class):
                left_out.append(f"no class of {mine.shown_weights} for the task's labels {_shown(unknown)}")
        if not controls:
            raise LabelingConfigError("; ".join(left_out))
        return replace(self, controls=tuple(controls)), left_out


def make_plan(
    label_config: str, settings: Settings, catalog: Catalog, wait_s: float | None = 0, *, trained: str | None = None
) -> ProjectPlan:
    """How this labeling config is served: each of its controls that can be, one at least.

    `trained` is the name of the project's own weights: where there are such, they stand in the place of the first of
    MODEL_NAME for controls that have no `model_path`. A model that was trained here does so for those that its kind is
    trained for, and weights that were published by hand, without thresholds, for all that they can serve. With
    TRAINING=on a plan may be one that serves nothing yet: a control without a class is enough.

    Raises LabelingConfigError for a config of which none can be, WeightsError where none has weights, and
    WeightsLoadingError where weights weren't read within `wait_s` (None: wait as long as it takes).
    """
    ends_at = None if wait_s is None else time.monotonic() + wait_s
    config = parse_labeling_config(label_config)
    served: list[ServedControl] = []
    without_class: list[ServedControl] = []
    faults: list[_Fault] = []
    first, *others = settings.model_names
    own = catalog.serving(trained, first) if trained else first

    def default_names(control: Control) -> tuple[str, ...]:
        """The weights for a control that names none.

        A trained model stands last for controls that it wasn't trained for; one that was published by hand only for
        those that it can't serve.
        """
        if own == first:
            return settings.model_names
        weights = weights_of(own)
        serves = learns(control, weights) if weights.thresholds else _fits(control, weights)
        return (own, *others) if serves else (*settings.model_names, own)

    @cache  # asked once for each name: other weights may serve under it from one moment to the next
    def weights_of(name: str) -> WeightsInfo:
        return catalog.wait_for_info(name, None if ends_at is None else max(0.0, ends_at - time.monotonic()))

    for control in config.controls:
        try:
            names = (control.model_path,) if control.model_path else default_names(control)
            mapped = _map(control, names, settings, weights_of)
        except (LabelingConfigError, WeightsError) as error:
            faults.append(_Fault(control, error))
            continue
        if control.labels_value is not None or mapped.label_map.label_of_class:
            served.append(mapped)
            continue
        faults.append(_Fault(control, LabelingConfigError(_nothing_matches(mapped))))
        if control.labels and learns(control, mapped.weights):
            without_class.append(mapped)
    taken = {(name, item.control.to_name) for item in served for name in kind_of(item.control).takes_over(item.control)}
    served = [item for item in served if (item.control.from_name, item.control.to_name) not in taken]
    without_class = [item for item in without_class if (item.control.from_name, item.control.to_name) not in taken]
    told = [fault for fault in faults if kind_of(fault.control).is_asked_for(fault.control)]
    if not served and not (settings.training == "on" and without_class):
        told = told or faults
        kind = (
            LabelingConfigError if any(isinstance(fault.error, LabelingConfigError) for fault in told) else WeightsError
        )
        raise kind("; ".join(dict.fromkeys(str(fault.error) for fault in told)))
    version = _model_version(served[0].weights_name, served, settings) if served else UNTRAINED
    sentences = [str(fault.error) for fault in told if (fault.control.from_name, fault.control.to_name) not in taken]
    return ProjectPlan(tuple(served), version, (*sentences, *config.not_served), tuple(without_class))


def learns(control: Control, weights: WeightsInfo) -> bool:
    """Returns True if such weights can be trained on what people draw with the control."""
    return weights.kind in kind_of(control).trained_with(control)


@dataclass(frozen=True)
class _Fault:
    """Why a control isn't served."""

    control: Control
    error: LabelingConfigError | WeightsError


def _map(
    control: Control, names: Sequence[str], settings: Settings, weights_of: Callable[[str], WeightsInfo]
) -> ServedControl:
    """The control by the first of these weights that are of a kind for it and have a class for it.

    Where no weights have one, by the first of its kind. Raises LabelingConfigError where none are of its kind, and
    WeightsError where some can't be had that stand before those that would do: others may not serve by chance.
    """
    faults: list[LabelingConfigError] = []
    fits: list[ServedControl] = []
    for name in names:
        weights = weights_of(name)
        try:
            _check_weights(control, weights, Path(name).name)
        except LabelingConfigError as error:
            faults.append(error)
            continue
        label_map = _label_map(control, weights, settings.model_score_threshold)
        mapped = ServedControl(control, weights, name, label_map, settings.model_score_threshold)
        if control.labels_value is not None or label_map.label_of_class:
            return mapped
        fits.append(mapped)
    if not fits:
        raise faults[0]
    return fits[0]


def _fits(control: Control, weights: WeightsInfo) -> bool:
    try:
        _check_weights(control, weights, weights.name)
    except LabelingConfigError:
        return False
    return True


def _check_weights(control: Control, weights: WeightsInfo, name: str) -> None:
    """Raises LabelingConfigError if the weights are of a kind that can't serve the control."""
    kind = kind_of(control)
    if not weights.finds_places and not kind.is_of_whole_image:
        raise LabelingConfigError(
            f"{shortened(name, _SHOWN_CHARACTERS)} are {weights.kind} weights, which find no places for "
            f'"{shortened(control.from_name, _SHOWN_CHARACTERS)}": name others in model_path, or beside them in '
            "MODEL_NAME"
        )
    kind.check_weights(control, weights, name)


def _label_map(control: Control, weights: WeightsInfo, default_threshold: float) -> LabelMap:
    kind = kind_of(control)
    known = kind.as_trained(control) if weights.thresholds else control
    return kind.map_labels(known, weights, default_threshold)


def _model_version(weights_name: str, served: Sequence[ServedControl], settings: Settings) -> str:
    ingredients = [
        {
            "revision": REVISION,
            "weights": item.weights.fingerprint,
            "image_size": item.weights.image_size,
            "iou_threshold": settings.model_iou_threshold,
            "max_detections": settings.model_max_detections,
            # Only where it isn't the default, whose versions stay as they are.
            **({"decode": settings.decode} if settings.decode != "full" else {}),
            **({"view": view.name} if (view := view_for(item.weights)) is not WHOLE else {}),
            # Images in one batch could lose their boxes to such a file, in versions before this.
            **({"batches": "within the file's own limit"} if item.weights.has_nms else {}),
            "control": [
                item.control.from_name,
                item.control.to_name,
                item.control.value.removeprefix("$"),
                item.control.is_list,
            ],
            **kind_of(item.control).ingredients(item.control),
            **(
                {"labels_of_task": [item.control.labels_value, item.own_threshold]} if item.control.labels_value else {}
            ),
            "labels": sorted(item.label_map.label_of_class.items()),
            **({"points": _points(item.label_map)} if item.label_map.label_of_point else {}),
            "thresholds": sorted(item.label_map.threshold_of_class.items()),
        }
        for item in served
    ]
    name = Path(weights_name).stem
    # With the name, for Label Studio finds a version in any that it is a part of: `best-...` in `cells-best-...`.
    digest = hashlib.sha256(json.dumps([name, ingredients], sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


def _points(label_map: LabelMap) -> list[Any]:
    return [
        [class_id, index, point.label, point.threshold, point.point_threshold]
        for (class_id, index), point in sorted(label_map.label_of_point.items())
    ]


def _nothing_matches(served: ServedControl) -> str:
    labels, classes = served.control.labels, served.weights.class_names
    if not labels:
        return f'The control "{served.control.from_name}" has no Label: write one for each class that is wanted'
    weights = shortened(served.shown_weights, _SHOWN_CHARACTERS)
    if reason := kind_of(served.control).why_unmatched(served.control, served.weights, weights):
        return reason
    shown = _shown([named(label.value, position) for position, label in enumerate(labels, 1)])
    known = _shown([named(name, number, "class") for number, name in classes.items()])
    return (
        f"None of the labels {shown} is a class of {weights}, "
        f'which has {known}: rename a label, or give it predicted_values="<a class>"'
    )


def _shown(names: Sequence[str]) -> str:
    """So many that a sentence of 240 characters has room for what to do."""
    kept = [shortened(name, _SHOWN_CHARACTERS) for name in names[:_SHOWN_NAMES]]
    while len(kept) > 1 and len(to_latin1(", ".join(kept))) > _SHOWN_TOGETHER:
        kept.pop()
    return ", ".join(kept) + (f" and {len(names) - len(kept)} more" if len(names) > len(kept) else "")
