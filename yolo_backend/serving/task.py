"""One task to its prediction: its images, their boxes, their regions."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from yolo_backend import metrics
from yolo_backend.detection.detector import AbandonedError
from yolo_backend.detection.pool import ModelPool
from yolo_backend.detection.remembered import ImageDetections
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.images.errors import HungUpError, ImageError
from yolo_backend.images.line import Line
from yolo_backend.images.sources import Upload, resolve_source
from yolo_backend.images.uploads import ProjectUploads, uploads_of
from yolo_backend.label_studio.errors import StudioUnreachedError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.control import Control
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.labels.regions import count_boxes, make_regions, of_all_pages, task_score
from yolo_backend.labels.sizes import bounded
from yolo_backend.labels.task_values import find_value, value_of
from yolo_backend.protocol import Prediction, Region, Task, task_data_of, task_id_of
from yolo_backend.serving.image import ABANDONED, Caller, ImageDetector, ImageFailedError, ImageReference
from yolo_backend.serving.remarks import Remark, RemarkLog
from yolo_backend.settings import Settings

log = logging.getLogger(__name__)

_SHOWN_KEYS, _MAX_SHOWN_KEY = 5, 40
_MAX_HOST = 300
_AUTHORITY = re.compile(r"((?:[a-z0-9+.-]+:)?//[^/?#\\\s]+)", re.IGNORECASE)

Finish = Callable[[Task, Prediction], Prediction]


@dataclass(frozen=True)
class TaskImage:
    """An image of a task: its upright RGB pixels (height, width, 3), and which regions are on it."""

    address: str
    pixels: NDArray[np.uint8]
    to_names: frozenset[str]
    item_index: int | None

    def shows(self, region: Mapping[str, Any]) -> bool:
        """Returns True if this region is on this image."""
        return region.get("to_name") in self.to_names and region.get("item_index") == self.item_index


@dataclass(frozen=True)
class TaskFile:
    """An image of a task as its source has it: its bytes, or why there are none."""

    address: str
    content: bytes | ImageError
    to_names: frozenset[str]
    item_index: int | None


class _ImageField(NamedTuple):
    """Where in a task's data an image is, or with `is_list` several."""

    value: str
    is_list: bool


class TaskPredictor:
    """Turns tasks into predictions, each for itself; safe to share between threads."""

    def __init__(self, settings: Settings, pool: ModelPool, connections: int) -> None:
        self._settings = settings
        self._pool = pool
        self._images = ImageDetector(settings, pool, connections)
        self.remarks = RemarkLog()

    def predict_task(
        self,
        task: Task,
        plan: ProjectPlan,
        studio: Studio | None,
        priority: int,
        *,
        project: str,
        finish: Finish | None = None,
        line: Line | None = None,
    ) -> Prediction | Failure:
        """The task's prediction, or why there is none. The caller counts failures and writes them to the log.

        `finish` may change the prediction at the end. Raises AbandonedError if nobody wants it any more: soon after
        `line` is hung up, and at once while an image is fetched.
        """
        caller = Caller(priority, line)
        fingerprints = {served.weights.fingerprint for served in plan.controls}
        with metrics.IN_FLIGHT.track_inprogress(), self._pool.using(fingerprints):
            outcome = self._outcome(task, plan, studio, caller, project=project, finish=finish)
            caller.check_line()  # whatever came of it
            if isinstance(outcome, Failure):
                return outcome
            prediction, regions = outcome
            _count(regions)
            return prediction

    def _outcome(
        self,
        task: Task,
        plan: ProjectPlan,
        studio: Studio | None,
        caller: Caller,
        *,
        project: str,
        finish: Finish | None,
    ) -> tuple[Prediction, list[Region]] | Failure:
        try:
            regions = self._regions(task, plan, studio, caller, project=project)
            prediction = self._prediction_of(regions, plan, task, project)
            regions = prediction["result"]
            if finish:
                prediction = _checked(finish(task, prediction), plan)
        except AbandonedError:
            raise
        except HungUpError:
            raise AbandonedError(ABANDONED) from None
        except ImageFailedError as error:
            return Failure(
                project, task_id_of(task), error.kind, str(error), error.address, is_passing=error.is_passing
            )
        except ImageError as error:
            return Failure(project, task_id_of(task), error.kind, str(error))
        except Exception:
            caller.check_line()
            log.exception("Task %s failed", task_id_of(task))
            return Failure(
                project, task_id_of(task), FailureKind.INTERNAL, "an error of the backend: its log says more"
            )
        return prediction, regions

    def recall(self, task: Task, plan: ProjectPlan, studio: Studio | None, *, project: str) -> Prediction | None:
        """The task's prediction, at once, if its images are remembered and lasting; else None: `predict_task` knows.

        It fetches nothing, and waits for nothing.
        """
        regions: list[Region] = []
        uploads = self.uploads_of(project)
        try:
            images = list(_task_images(task, plan))
            for value, item_index, controls in images:
                found = self._images.recall(ImageReference(value, task_id_of(task), studio, uploads), controls)
                if found is None:
                    return None
                regions += _regions_on(found, item_index, controls)
            regions = _of_task(regions, plan)
            prediction = self._prediction_of(regions, plan, task, project)
        except Exception:  # whatever is wrong with the task: `predict_task` tells it
            return None
        metrics.REMEMBERED_IMAGES.inc(len(images))
        _count(prediction["result"])
        return prediction

    def images(self, task: Task, plan: ProjectPlan, studio: Studio | None, *, project: str) -> list[TaskImage]:
        """The images that the plan looks at, in their order. Raises ImageError, StudioError, requests.Timeout."""
        images = []
        for value, item_index, controls in _task_images(task, plan):
            image = ImageReference(value, task_id_of(task), studio, self.uploads_of(project))
            pixels = self._images.fetch_and_decode(image).pixels
            to_names = frozenset(served.control.to_name for served in controls)
            images.append(TaskImage(value, pixels, to_names, item_index))
        return images

    def files(
        self, task: Task, controls: Sequence[Control], studio: Studio | None, *, project: str
    ) -> Iterator[TaskFile]:
        """The files that these controls are on, in their order; an image that can't be had costs no other one.

        Raises ImageError where the task has none, and StudioError or requests.Timeout where Label Studio is away.
        """
        for field, value, item_index in _images_at(task, [_field_of(control) for control in controls]):
            content: bytes | ImageError
            try:
                content = self._images.fetch(ImageReference(value, task_id_of(task), studio, self.uploads_of(project)))
            except ImageError as error:
                if studio is not None and studio.is_unreachable():
                    raise StudioUnreachedError(
                        f"Label Studio at {studio.url} is away: begin again once it answers ({error})"
                    ) from None
                content = error
            to_names = frozenset(control.to_name for control in controls if _field_of(control) == field)
            yield TaskFile(value, content, to_names, item_index)

    def _regions(
        self, task: Task, plan: ProjectPlan, studio: Studio | None, caller: Caller, *, project: str
    ) -> list[Region]:
        regions: list[Region] = []
        uploads = self.uploads_of(project)
        for value, item_index, controls in _task_images(task, plan):
            found = self._images.find(ImageReference(value, task_id_of(task), studio, uploads), controls, caller)
            regions += _regions_on(found, item_index, controls)
        return _of_task(regions, plan)

    def _prediction_of(self, regions: list[Region], plan: ProjectPlan, task: Task, project: str) -> Prediction:
        # Of a plan for lower scores others are left out first: who asked by it bounds what remains above its own.
        is_lowered = any(served.highest_threshold < 1 for served in plan.controls)
        kept, remark = (regions, None) if is_lowered else bounded(regions)
        if remark:
            self.remarks.add(Remark(project, task_id_of(task), remark))
        return {"result": kept, "score": task_score(kept), "model_version": plan.model_version}

    def uploads_of(self, project: str) -> ProjectUploads | None:
        """The project's uploads on the disk; None if none are read there."""
        return uploads_of(self._settings.label_studio_media_root, project)


def _regions_on(found: ImageDetections, item_index: int | None, controls: Sequence[ServedControl]) -> list[Region]:
    regions: list[Region] = []
    for served in controls:
        detections = found.detections[served.weights.fingerprint]
        regions += make_regions(detections, served.control, served.label_map, found.size_wh, item_index)
    return regions


def _of_task(regions: list[Region], plan: ProjectPlan) -> list[Region]:
    return of_all_pages(regions, [served.control for served in plan.controls])


def _count(regions: Sequence[Region]) -> None:
    metrics.TASKS.labels("predicted").inc()
    metrics.REGIONS.inc(count_boxes(regions))


def _checked(prediction: Any, plan: ProjectPlan) -> Prediction:
    """What `finish` returned, if it can be sent. Its version is always the plan's, because Label Studio compares it."""
    if not isinstance(prediction, dict):
        raise TypeError(f"finish should return a prediction, a dict, not {type(prediction).__name__}")
    json.dumps(prediction, allow_nan=False)
    return cast("Prediction", {**prediction, "model_version": plan.model_version})


def host_of(task: Task, plan: ProjectPlan, studio: Studio | None, uploads: ProjectUploads | None = None) -> str:
    """Where the task's first image is: a host; for a bucket's address the bucket; "" for what is no address.

    Uploads that are read from the disk need no host, so they don't wait for images that do. If Label Studio had to be
    asked for one, the project's uploads count for Label Studio until one is read from the disk again.
    """
    data = task_data_of(task)
    if data is None or not plan.controls:
        return ""
    value = find_value(data, plan.controls[0].control.value)
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, str) or value.startswith("data:"):
        return ""
    if studio and uploads and uploads.may_mean(value):
        known_outside_url = studio.known_outside_url  # nobody is asked for it here
        with suppress(ImageError):
            source = resolve_source(value, None, studio.url, None, lambda: known_outside_url, uploads=uploads)
            if isinstance(source, Upload):
                return source.pseudo_host
    address = value[:_MAX_HOST].strip()
    if not address.startswith("/") and (found := _AUTHORITY.match(address)):
        return found[1].lower().removeprefix("http:").removeprefix("https:").removeprefix("//")
    return urlsplit(studio.url).netloc if studio else ""


def _task_images(task: Task, plan: ProjectPlan) -> Iterator[tuple[Any, int | None, list[ServedControl]]]:
    """Each image's value, its page of a `valueList`, and the controls on it. Raises ImageError."""
    try:
        plan, left_out = plan.for_task(_data_of(task))
    except LabelingConfigError as error:
        raise ImageError(FailureKind.LABELS, str(error)) from None
    for reason in left_out:
        _say_once(plan.model_version, reason)
    by_field: dict[_ImageField, list[ServedControl]] = {}
    for served in plan.controls:
        by_field.setdefault(_field_of(served.control), []).append(served)
    for field, image, item_index in _images_at(task, by_field):
        yield image, item_index, by_field[field]


def _images_at(task: Task, fields: Iterable[_ImageField]) -> Iterator[tuple[_ImageField, Any, int | None]]:
    """Where in a task an image is, its value, and its page of a `valueList`. Raises ImageError."""
    data = _data_of(task)
    wanted = list(dict.fromkeys(fields))
    # A task may lack one of several images, but not all.
    for field in [field for field in wanted if find_value(data, field.value)] or wanted:
        for item_index, image in enumerate(_images_of(data, field.value, field.is_list)):
            yield field, image, item_index if field.is_list else None


def _field_of(control: Control) -> _ImageField:
    return _ImageField(control.value, control.is_list)


def _data_of(task: Task) -> Mapping[str, Any]:
    """The task's data. Raises ImageError."""
    data = task_data_of(task)
    if data is None:
        raise ImageError(FailureKind.WRONG_TYPE, "the task has no data")
    return data


@lru_cache(maxsize=1000)
def _say_once(model_version: str, reason: str) -> None:
    """One line in the log for all tasks that lack the same labels."""
    log.warning("Predictions of %s are without some labels: %s", model_version, reason)


def _images_of(data: Mapping[str, Any], value: str, is_list: bool) -> Sequence[Any]:
    name = value.removeprefix("$")
    try:
        images = value_of(data, value)
    except KeyError as error:
        there = _keys_of(data) or "nothing"
        raise ImageError(FailureKind.MISSING_KEY, f'the task\'s data has no "{error.args[0]}", but {there}') from None
    if isinstance(images, list):
        if not images:
            raise ImageError(FailureKind.MISSING_KEY, f'"{name}" is an empty list')
        if len(images) > 1 and not is_list:  # the page shows them, but not which of them a box is on
            raise ImageError(
                FailureKind.WRONG_TYPE,
                f'"{name}" is a list of {len(images)} images: write valueList="{value}" in the labeling config, not '
                f'value="{value}", so that each has boxes of its own',
            )
        return images
    if isinstance(images, Mapping):
        attribute = "valueList" if is_list else "value"
        raise ImageError(
            FailureKind.WRONG_TYPE,
            f'"{name}" is not an address, but an object: write {attribute}="{value}.{_field_of_image(images)}" in the '
            f"labeling config, because it has {_keys_of(images) or 'nothing in it'}",
        )
    return [images]


def _field_of_image(images: Mapping[str, Any]) -> str:
    """Which field of an object seems to have the image's address."""
    texts = {key: item for key, item in images.items() if isinstance(item, str) and re.fullmatch(r"\w+", key)}
    return next((key for key, item in texts.items() if "/" in item), None) or next(
        (key for key, item in texts.items() if "." in item), "url"
    )


def _keys_of(data: Mapping[str, Any]) -> str:
    shown = ", ".join(f'"{str(key)[:_MAX_SHOWN_KEY]}"' for key in list(data)[:_SHOWN_KEYS])
    return f"{shown} and {len(data) - _SHOWN_KEYS} more" if len(data) > _SHOWN_KEYS else shown
