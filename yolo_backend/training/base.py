"""Which weights a training begins with, and what of their classes is known of the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from yolo_backend.detection.weights import WeightsError, find_weights
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import learns, make_plan
from yolo_backend.messages import shortened
from yolo_backend.serving.request import open_catalog
from yolo_backend.settings import Settings
from yolo_backend.training.errors import TrainingError
from yolo_backend.training.kinds import kind_of_file, own_kind
from yolo_backend.training.learnt import map_classes
from yolo_backend.training.records import are_judged_alike
from yolo_backend.training.registry import ProjectModels


def find_base(name: str | None, settings: Settings, *, may_be_path: bool = False) -> Path:
    """The file of the base: the first of MODEL_NAME, or other weights, by their name in MODEL_ROOT, or `demo`.

    A path may be given only by the operator, because a .pt file is code. Raises WeightsError, without opening it.
    """
    name = name or settings.model_names[0]
    path = Path(name).expanduser()
    if may_be_path and (path.parent != Path() or not (settings.model_root / name).exists()) and path.is_file():
        found = path
    else:
        found = find_weights(name, settings.model_root, may_download=name in settings.model_names)
    if found.suffix != ".pt":
        raise WeightsError(
            f"{shortened(found.name)} is an export, and only a .pt can be trained: name the .pt that it was made of "
            "(--base, or MODEL_NAME)"
        )
    return found


def serving_name(label_config: str, settings: Settings, kind: str | None = None) -> str:
    """Of several names in MODEL_NAME the first that serves a control on which it can be trained; else the first.

    With a `kind`, of those that are judged by the same as models of this kind: that is what a new one is compared with.
    Without, it is what a training begins with unless a base is named; choices that are people's own aren't trained
    unasked. Waits for the weights.
    """
    first, *others = settings.model_names
    if not others:
        return first
    # In torch, because only their kinds and classes are asked for, and an export would go on behind.
    settings = settings.model_copy(update={"training": "on", "engine": "torch"})
    with closing(open_catalog(settings)) as catalog:
        try:
            plan = make_plan(label_config, settings, catalog, None)
        except (LabelingConfigError, WeightsError):
            return first
    served = (*plan.controls, *plan.without_class)
    trained = {
        one.weights_name
        for one in served
        if learns(one.control, one.weights)
        and not one.control.model_path
        and (are_judged_alike(one.weights.kind, kind) if kind else kind_of(one.control).is_asked_for(one.control))
    }
    return next((name for name in settings.model_names if name in trained), first)


def unnamed_base(name: str | None, project: Project, models: ProjectModels, settings: Settings) -> tuple[str, Path]:
    """The name and the file of the base where nobody named one: of the kind that serves the project alone, so that it
    may go on.

    That is `name`, which MODEL_NAME says if it lists nothing else, or of several the one that serves; where these are
    of another kind, it is what the run that serves began with, or one before it. Waits for the weights. Raises
    WeightsError, TrainingError.
    """
    kind = own_kind(models) if models.file.exists() else None
    if kind and not _can_be_trained(project.label_config, kind):
        kind = None
    name = name or serving_name(project.label_config, settings, kind)
    base = find_base(name, settings)
    its_kind = kind_of_file(base)
    if kind is None or its_kind is None or are_judged_alike(its_kind, kind):
        return name, base
    for earlier in _bases_before(models, kind):
        try:
            # The operator named it then; a relative path was one from another folder.
            before = find_base(earlier, settings, may_be_path=Path(earlier).is_absolute())
        except WeightsError:
            continue
        if are_judged_alike(kind_of_file(before) or "unknown", kind):
            return earlier, before
    raise TrainingError(
        f"A {kind} model serves project {project.id}, {shortened(base.name)} (MODEL_NAME) are {its_kind} weights, and "
        f"the base of that model isn't found: train with `yolo-backend train --project {project.id} --base NAME.pt`, "
        f"or list {kind} weights in MODEL_NAME"
    )


def _can_be_trained(label_config: str, kind: str) -> bool:
    """Returns True if models of this kind learn from a control that names no weights of its own."""
    try:
        controls = parse_labeling_config(label_config).controls
    except LabelingConfigError:  # which is told where it is read
        return False
    return any(kind in kind_of(control).trained_with(control) and not control.model_path for control in controls)


def _bases_before(models: ProjectModels, kind: str) -> list[str]:
    """The names of the bases of runs of this kind: first of the one that serves, then of the newest."""
    serving = models.promoted()
    runs = [run for run in models.runs() if are_judged_alike(run.kind, kind)]
    runs.sort(key=lambda run: run.run != serving)
    return list(dict.fromkeys(run.options.base for run in runs if run.options))


def known_classes(controls: Iterable[Control], class_names: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """By label: the classes of the base that become it, as the label map says; labels without one are left out."""
    known: dict[str, set[int]] = {}
    for control in controls:
        for class_id, label in map_classes(control, class_names, 0.0).label_of_class.items():
            known.setdefault(label, set()).add(class_id)
    return {label: tuple(sorted(class_ids)) for label, class_ids in known.items()}
