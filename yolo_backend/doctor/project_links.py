"""The links from here to a prediction: Label Studio, token, project, weights, labels, images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import requests
from label_studio_sdk.label_interface import LabelInterface

from yolo_backend.detection.weights import WeightsError
from yolo_backend.doctor.findings import BrokenLinkError, LinkState, NotTriedError, Observation, broken_by, fix_of
from yolo_backend.doctor.installation import TIMEOUT_S, Installation
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.images.errors import ImageError
from yolo_backend.images.local_files import open_below, reason_of
from yolo_backend.images.oddities import CLOUD_SCHEMES
from yolo_backend.images.sources import Upload, resolve_source
from yolo_backend.images.uploads import uploads_of
from yolo_backend.label_studio.errors import StudioError, StudioMissingError, StudioRefusedError, explain
from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import QUICK_IMPORTS
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.tokens import kind_of
from yolo_backend.labels.controls import table as kinds
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.plans import LABELLED_IMAGES, ProjectPlan, ServedControl
from yolo_backend.labels.regions import count_boxes
from yolo_backend.labels.task_values import find_value
from yolo_backend.protocol import Prediction, Task

_LOOKED_AT_TASKS = 2000  # to find a task of each kind of storage
_SHOWN_NAMES = 8
_MANY_PREDICTED = 1000
_COUNTING_S = 0.002
_BOXES = frozenset({"rectanglelabels", "rectangle", "labels"})
_NO_IMAGE = "no image"
_MAKE_ONE = (
    "Make one in Label Studio (your avatar > Account & Settings > Personal Access Token > Create) and set it as "
    "LABEL_STUDIO_API_KEY."
)
_NAME_WEIGHTS = "Put the weights into MODEL_ROOT, or correct MODEL_NAME or the control's model_path."
_MEND_MEDIA_ROOT = (
    "Let LABEL_STUDIO_MEDIA_ROOT be the media/ of this Label Studio, and let the backend's user read the files in it. "
    "Symbolic links in it aren't followed."
)
_ADD_STORAGE = "Add the bucket to the project (Settings > Cloud Storage), and look whether the file is in it."


def label_studio(it: Installation) -> Iterator[Observation]:
    """Tells whether Label Studio answers at its address."""
    url = it.studio.url
    try:
        version = Studio(url, None).call("GET", "/api/version/", "release", TIMEOUT_S)
    except StudioError as error:
        if isinstance(error, StudioRefusedError) and error.reason:  # Label Studio gives its version to everyone
            raise BrokenLinkError(f"what answers at {url} isn't Label Studio", _correct_address(url)) from None
        raise broken_by(error, _correct_address(url)) from None
    except requests.Timeout as error:
        raise BrokenLinkError(explain(error), _correct_address(url)) from None
    yield Observation(f"{url} answers, version {version}")


def token(it: Installation) -> Iterator[Observation]:
    """Tells which kind of token it is, and whether it is accepted."""
    if not it.studio.token:
        raise BrokenLinkError("there is none", _MAKE_ONE)
    kind = kind_of(it.studio.token)
    try:
        user = it.studio.call("GET", "/api/current-user/whoami", "email", TIMEOUT_S)
    except StudioRefusedError as error:
        if not error.reason:  # Label Studio says why it refuses, a proxy doesn't
            raise broken_by(error, _MAKE_ONE) from None
        raise BrokenLinkError(f"it is {kind}. {error}", _MAKE_ONE) from None
    yield Observation(f"{kind} of {user}, accepted")


def project(it: Installation) -> Iterator[Observation]:
    """Tells whether the token shows the project."""
    try:
        found = it.project
    except StudioMissingError as error:
        raise BrokenLinkError(
            str(error), "Name a project that the token's user sees on Label Studio's first page."
        ) from None
    yield Observation(f'{found.id} "{found.title}", {_counted(found.count(), "task")}')


def imports(it: Installation) -> Iterator[Observation]:
    """Tells whether importing predictions is quick, if many tasks hold some; otherwise nothing."""
    predicted = it.project.count([task_filter("total_predictions", "greater", 0, "Number")])
    if predicted < _MANY_PREDICTED:
        return
    hold = f"{predicted} tasks hold predictions already"
    is_quick = _is_import_quick(it.studio)
    if is_quick:
        yield Observation(f"{hold}, and Label Studio counts anew only those that an import is about")
        return
    unseen = "" if is_quick is False else "; whether it does can't be seen with this token"
    yield Observation(
        f"{hold}, and each import of more counts all of them anew (about {predicted * _COUNTING_S:.0f} s), unless "
        f"Label Studio runs with {QUICK_IMPORTS}=true{unseen}",
        LinkState.REMARK,
        f"Start Label Studio with {QUICK_IMPORTS}=true.",
    )


def weights(it: Installation) -> Iterator[Observation]:
    """Tells whether the weights can be had and read."""
    for name in it.settings.model_names:
        try:
            info = it.predictor.catalog.wait_for_info(name, None)
            runtime = it.predictor.catalog.wait_for_runtime(name)
        except WeightsError as error:
            yield Observation(str(error), LinkState.WRONG, _NAME_WEIGHTS)
            continue
        classes = _counted(len(info.class_names), "class", "classes")
        yield Observation(f"{name}: {info.kind}, {classes}, on {runtime.device} in {runtime.engine}")
        if info.remark:
            yield Observation(info.remark, LinkState.REMARK)


def labels(it: Installation) -> Iterator[Observation]:
    """Tells which class becomes which label, and which names have no partner."""
    try:
        plan = it.plan
    except WeightsError as error:
        raise BrokenLinkError(str(error), _NAME_WEIGHTS) from None
    except LabelingConfigError as error:
        raise BrokenLinkError(
            str(error), "Change the labeling config (Settings > Labeling Interface), or choose weights that fit it."
        ) from None
    for served in plan.controls:
        yield _pairs(served)
    if plan.is_untrained:
        shown = _shown(plan.without_class[0].label_map.labels_without_class)
        yield Observation(
            f"nothing is trained yet, and {it.settings.model_name} has no class for {shown}: tasks get no predictions",
            LinkState.REMARK,
            f"Label {LABELLED_IMAGES} images or more, and press Start Training (Settings > Model), or run "
            f"`yolo-backend train --project {it.project.id}`.",
        )
    for sentence in plan.not_served if plan.controls else ():
        yield Observation(f"not served: {sentence}", LinkState.REMARK, "Do nothing if people are to label that.")
    yield Observation(f"the model_version is {plan.model_version}")


def uploads(it: Installation) -> Iterator[Observation]:
    """Tells whether uploads can be read from the disk; nothing if no folder is named."""
    if root := it.settings.label_studio_media_root:
        if trouble := it.uploads_trouble:
            meanwhile = f"{trouble.what}; meanwhile they are fetched from Label Studio"
            if trouble.lasts:
                yield Observation(meanwhile, LinkState.REMARK, fix_of(trouble))
            else:
                yield Observation(f"{meanwhile}: {trouble.fix}")
        else:
            yield Observation(f"they are read from {root}")


def images(it: Installation) -> Iterator[Observation]:
    """Tells whether an image of each storage kind can be fetched, decoded and predicted, as the server would."""
    if it.plan.is_untrained:
        raise NotTriedError("nothing is trained yet")
    task_of_kind = one_of_each_kind(it.project, it.plan)
    if not task_of_kind:
        raise NotTriedError("the project has no tasks")
    tasks = {task["id"]: task for task in task_of_kind.values()}
    outcomes = {
        task["id"]: outcome for task, outcome in it.predictor.stream(list(tasks.values()), it.plan, str(it.project.id))
    }
    for kind, task in sorted(task_of_kind.items()):
        outcome = outcomes[task["id"]]
        name = f"{kind}: task {task['id']}"
        if isinstance(outcome, Failure):
            where = f"{name}, {outcome.address}" if outcome.address else name
            yield Observation(f"{where}: {outcome.reason}", LinkState.WRONG, _advice(kind, outcome))
        else:
            yield Observation(f"{name} is fetched and decoded, {_found([outcome])}")
            if kind == "upload":
                yield from _not_from_disk(it, task)
    it.predictions = [outcome for outcome in outcomes.values() if not isinstance(outcome, Failure)]


def _not_from_disk(it: Installation, task: Task) -> Iterator[Observation]:
    """Why an upload of the task isn't read from the folder of uploads; nothing if it is."""
    root = it.settings.label_studio_media_root
    if root is None or it.uploads_trouble:  # which was told already
        return
    mine = uploads_of(root, str(it.project.id))
    for value in _image_values(task, it.plan):
        try:
            source = resolve_source(value, task["id"], it.studio.url, None, it.studio.outside_url, uploads=mine)
            if isinstance(source, Upload):
                open_below(source.root, source.name).close()
        except ImageError:  # it is about another image of the task
            continue
        except (OSError, ValueError) as error:
            not_read = f"its file isn't read from {root} ({reason_of(error)}), but fetched from Label Studio"
            yield Observation(f"upload: task {task['id']}: {not_read}", LinkState.REMARK, _MEND_MEDIA_ROOT)
            return


def prediction(it: Installation) -> Iterator[Observation]:
    """Tells whether Label Studio's own judge finds a prediction valid."""
    if not it.predictions:
        raise NotTriedError("no image was predicted")
    interface = LabelInterface(it.project.label_config)
    for made in it.predictions:
        if errors := interface.validate_prediction(made, return_errors=True):
            raise BrokenLinkError(
                f"Label Studio would refuse it: {errors[0]}",
                "Unless the model class is your own, it is a fault of the backend: please report it.",
            )
    yield Observation(f"{_counted(len(it.predictions), 'prediction')} with {_found(it.predictions)}, valid")


def _found(predictions: Sequence[Prediction]) -> str:
    """How much these predictions hold: boxes, or whatever else."""
    regions = [region for made in predictions for region in made["result"]]
    count = sum(count_boxes(made["result"]) for made in predictions)
    are_boxes = all(region.get("type") in _BOXES for region in regions)
    return _counted(count, "box", "boxes") if are_boxes else _counted(count, "result")


def one_of_each_kind(project: Project, plan: ProjectPlan) -> dict[str, Task]:
    """A task for each kind of storage among the project's first tasks, by the kind's name."""
    found: dict[str, Task] = {}
    for task in islice(project.tasks(fields=["data"]), _LOOKED_AT_TASKS):
        for value in _image_values(task, plan) or [None]:
            found.setdefault(storage_kind(value), task)
    return found


def _image_values(task: Task, plan: ProjectPlan) -> list[Any]:
    """The values of the task's images: for each control, and for each page of a list."""
    given = [find_value(task["data"], name) for name in dict.fromkeys(each.control.value for each in plan.controls)]
    return [item for value in given if value for item in (value if isinstance(value, list) else [value])]


def storage_kind(value: Any) -> str:
    """Where the image of a task's value is stored: upload, Local Files, s3, gs, azure-blob, http, data."""
    if not isinstance(value, str):
        return _NO_IMAGE
    head = value.strip()[:1000]
    scheme = re.match(r"[a-zA-Z][\w.+-]+(?=:)", head)  # one letter is a Windows disk's
    if scheme:
        return re.sub("^https$", "http", scheme[0].lower())
    path = urlsplit(head).path
    if path.endswith("/data/local-files/"):
        return "Local Files"
    return "upload" if "/data/upload/" in path or "/storage-data/" in path else "other"


def _is_import_quick(studio: Studio) -> bool | None:
    """Whether Label Studio's flag is on; None if it doesn't say so, for example to a legacy token."""
    try:
        return bool(studio.call("GET", "/feature-flags/", QUICK_IMPORTS, TIMEOUT_S))
    except StudioError:
        return None


def _advice(kind: str, failure: Failure) -> str:
    is_unknown_to_studio = kind in CLOUD_SCHEMES and failure.kind == FailureKind.NOT_FOUND
    return _ADD_STORAGE if is_unknown_to_studio else failure.kind.advice


def _pairs(served: ServedControl) -> Observation:
    if served.control.labels_value:
        return Observation(f"{served.control.from_name} on {served.control.to_name}: the labels come with each task")
    pairs = [f"{_shown(pair.classes)} → {pair.label} above {pair.threshold:g}" for pair in served.served_labels]
    detail = f"{served.control.from_name} on {served.control.to_name}: {_shown(pairs, '; ') or 'nothing'}"
    if without_label := served.label_map.classes_without_label:
        detail += f". Classes without a label: {_shown(without_label)}"
    if without_class := served.label_map.labels_without_class:
        return Observation(
            f"{detail}. Labels without a class, which are never predicted: {_shown(without_class)}",
            LinkState.REMARK,
            kinds.kind_of(served.control).why_unmatched(served.control, served.weights, served.shown_weights)
            or 'Where a label means one of the classes, rename it or give it predicted_values="<the class>".',
        )
    return Observation(detail)


def _correct_address(url: str) -> str:
    fix = "Set LABEL_STUDIO_URL to the address of Label Studio's first page, as it is reached from here."
    is_loopback = urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}
    return fix + (" In a container, localhost is the container itself." if is_loopback else "")


def _shown(names: Sequence[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return separator.join(names[:_SHOWN_NAMES]) + more


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
