"""One task to its prediction: its images, their boxes, their regions."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from yolo_backend import metrics
from yolo_backend.addresses import is_same_origin, redact
from yolo_backend.cores import usable_cores
from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.detection.detector import BULK, AbandonedError, DetectorError
from yolo_backend.detection.pool import ModelPool
from yolo_backend.detection.remembered import FoundInImage, RememberedDetections
from yolo_backend.detection.views import Shown, show, view_for
from yolo_backend.detection.weights import WeightsError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import HungUpError, ImageError
from yolo_backend.images.fetch import Fetched, ImageFetcher
from yolo_backend.images.identity import Identities, Identity, identity_key, is_lasting
from yolo_backend.images.line import Line
from yolo_backend.images.sources import Inline, Remote, Source, Upload, resolve_source
from yolo_backend.images.uploads import ProjectUploads, uploads_of
from yolo_backend.images.versions import Version
from yolo_backend.label_studio.errors import StudioError, StudioUnreachedError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.control import Control
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.labels.regions import count_boxes, make_regions, task_score
from yolo_backend.labels.task_values import find_value, value_of
from yolo_backend.messages import first_line
from yolo_backend.protocol import Prediction, Region, Task, task_id_of
from yolo_backend.settings import Settings

log = logging.getLogger(__name__)

_SHOWN_KEYS, _MAX_SHOWN_KEY = 5, 40
_MAX_HOST = 300
_AUTHORITY = re.compile(r"((?:[a-z0-9+.-]+:)?//[^/?#\\\s]+)", re.IGNORECASE)
_LOOK_FOR_CLIENT_S = 0.25
_ABANDONED = "nobody waits for this task any more"
_IDENTITIES_SHARE = 0.2  # of the memory; the rest is for detections, which are longer

IsAbandoned = Callable[[], bool]
Finish = Callable[[Task, Prediction], Prediction]


class _TaskError(Exception):
    """Why a task has no prediction."""

    def __init__(self, kind: FailureKind, reason: str, address: str | None = None, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.address = address
        self.is_passing = is_passing


@dataclass(frozen=True)
class TaskImage:
    """An image of a task: its upright RGB pixels (height, width, 3), and which regions are on it."""

    address: str
    pixels: NDArray[np.uint8]
    to_names: frozenset[str]
    item_index: int | None

    def shows(self, region: Mapping[str, Any]) -> bool:
        """Is this region on this image?"""
        return region.get("to_name") in self.to_names and region.get("item_index") == self.item_index


@dataclass(frozen=True)
class TaskFile:
    """An image of a task as its source has it: its bytes, or why there are none."""

    address: str
    content: bytes | ImageError
    to_names: frozenset[str]
    item_index: int | None


@dataclass(frozen=True)
class _NewImage:
    """An image that nothing is remembered of: its bytes, and by what to know it again."""

    key: bytes
    identity: Identity
    content: bytes


class _Place(NamedTuple):
    """Where in a task's data an image is, or with `is_list` several."""

    value: str
    is_list: bool


@dataclass(frozen=True)
class _Caller:
    """Who waits for a task, and which uploads they need not ask for; they have gone where the line is hung up."""

    priority: int
    line: Line | None
    uploads: ProjectUploads | None

    @property
    def is_abandoned(self) -> IsAbandoned | None:
        """Whether they have gone, for those who wait; None where nobody looks."""
        line = self.line
        if line is None or self.priority == BULK:  # nobody hangs up on bulk work, and who looks wakes 4 times a second
            return None
        return lambda: line.is_hung_up

    def check(self) -> None:
        """Raises AbandonedError where nobody waits any more."""
        if self.is_abandoned and self.is_abandoned():
            raise AbandonedError(_ABANDONED)

    def check_line(self) -> None:
        """Raises AbandonedError where the line was hung up: what went wrong then is nobody's fault."""
        if self.line is not None and self.line.is_hung_up:
            raise AbandonedError(_ABANDONED)


class TaskPredictor:
    """Turns tasks into predictions, each for itself; safe to share between threads."""

    def __init__(self, settings: Settings, pool: ModelPool, connections: int) -> None:
        self._settings = settings
        self._pool = pool
        self._fetcher = ImageFetcher(
            timeout_s=settings.image_timeout_s,
            max_bytes=int(settings.max_image_megabytes * 1e6),
            connections=connections,
            allowed_hosts=settings.allowed_image_hosts,
        )
        max_bytes = settings.cache_megabytes * 1e6
        self._identities = Identities(max_bytes * _IDENTITIES_SHARE)
        self._remembered = RememberedDetections(max_bytes * (1 - _IDENTITIES_SHARE))
        # A decoded photograph is large: only as many at a time as there are cores to decode them, people's apart.
        self._decoding = [threading.BoundedSemaphore(usable_cores()) for _ in range(2)]

    def predict(
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
        """The task's prediction, or why there is none; whoever calls counts that and writes it to the log.

        `finish` has the last word on the prediction. Raises AbandonedError where nobody wants it any more: soon after
        `line` is hung up, and at once while an image is fetched.
        """
        caller = _Caller(priority, line, self.uploads_of(project))
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
        caller: _Caller,
        *,
        project: str,
        finish: Finish | None,
    ) -> tuple[Prediction, list[Region]] | Failure:
        try:
            regions = self._regions(task, plan, studio, caller)
            prediction = _prediction_of(regions, plan)
            if finish:
                prediction = _checked(finish(task, prediction), plan)
        except AbandonedError:
            raise
        except HungUpError:
            raise AbandonedError(_ABANDONED) from None
        except _TaskError as error:
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
        """The task's prediction, at once, where its images are remembered and lasting; None where `predict` has to say.

        It fetches nothing, and waits for nothing.
        """
        regions: list[Region] = []
        uploads = self.uploads_of(project)
        try:
            images = list(_task_images(task, plan))
            for value, item_index, controls in images:
                known = self._identities.find(_key_of(value, studio, uploads))
                if known is None or not known.is_lasting:
                    return None
                found = self._remembered.find(known.digest, _lowest_thresholds(controls))
                if found is None:
                    return None
                regions += _regions_on(found, item_index, controls)
            prediction = _prediction_of(regions, plan)
        except Exception:  # whatever is wrong with the task: `predict` tells it
            return None
        metrics.REMEMBERED_IMAGES.inc(len(images))
        _count(regions)
        return prediction

    def images(self, task: Task, plan: ProjectPlan, studio: Studio | None, *, project: str) -> list[TaskImage]:
        """The images that the plan looks at, in their order. Raises ImageError, StudioError, requests.Timeout."""
        images = []
        for value, item_index, controls in _task_images(task, plan):
            content = self._fetch_for(value, task, studio, project)
            pixels = decode_image(content, self._settings.max_image_megapixels).pixels
            to_names = frozenset(served.control.to_name for served in controls)
            images.append(TaskImage(value, pixels, to_names, item_index))
        return images

    def files(
        self, task: Task, controls: Sequence[Control], studio: Studio | None, *, project: str
    ) -> Iterator[TaskFile]:
        """The files that these controls are on, in their order; an image that can't be had costs no other one.

        Raises ImageError where the task has none, and StudioError or requests.Timeout where Label Studio is away.
        """
        for place, value, item_index in _images_at(task, [_place_of(control) for control in controls]):
            content: bytes | ImageError
            try:
                content = self._fetch_for(value, task, studio, project)
            except ImageError as error:
                if studio is not None and studio.is_unreachable():
                    raise StudioUnreachedError(
                        f"Label Studio at {studio.url} is away: begin again once it answers ({error})"
                    ) from None
                content = error
            to_names = frozenset(control.to_name for control in controls if _place_of(control) == place)
            yield TaskFile(value, content, to_names, item_index)

    def _fetch_for(self, value: Any, task: Task, studio: Studio | None, project: str) -> bytes:
        source = self._source_of(value, task_id_of(task), studio, self.uploads_of(project))
        return self._fetcher.fetch(source, studio, None).content

    def _regions(
        self,
        task: Task,
        plan: ProjectPlan,
        studio: Studio | None,
        caller: _Caller,
    ) -> list[Region]:
        regions: list[Region] = []
        for value, item_index, controls in _task_images(task, plan):
            try:
                found = self._find(value, task_id_of(task), controls, studio, caller)
            except ImageError as error:
                raise _TaskError(error.kind, error.told_of(redact(value)), redact(value)) from None
            except WeightsError as error:
                raise _TaskError(FailureKind.WEIGHTS, str(error)) from None
            except DetectorError as error:
                raise _TaskError(FailureKind.DETECTOR, str(error), redact(value)) from None
            regions += _regions_on(found, item_index, controls)
        return regions

    def _find(
        self,
        value: Any,
        task_id: int | None,
        controls: Sequence[ServedControl],
        studio: Studio | None,
        caller: _Caller,
    ) -> FoundInImage:
        """What the weights of these controls find in one image; from memory, if they have seen it before."""
        thresholds = _lowest_thresholds(controls)
        image = self._recall_or_fetch(value, task_id, thresholds, studio, caller)
        if isinstance(image, FoundInImage):
            metrics.REMEMBERED_IMAGES.inc()
            return image
        self._load(thresholds, caller)  # an image that changed came without; whoever decodes shouldn't wait for weights
        weights = {served.weights.fingerprint: served.weights for served in controls}
        shown, size_wh, remark = self._show(image.content, weights, caller)
        if remark:
            log.warning("Task %s: %s: %s", task_id, redact(value), remark)
        key, identity = image.key, image.identity
        del image  # which others' images need the memory of
        detections = {}
        for fingerprint, threshold in thresholds.items():
            # Where each box costs much, not for boxes that nobody asked for.
            is_costly = weights[fingerprint].has_costly_boxes
            floor = threshold if is_costly else self._remembered.floor(threshold)
            found = self._detect(fingerprint, shown.pop(fingerprint), floor, caller)
            detections[fingerprint] = found
            self._remembered.keep(identity.digest, fingerprint, floor, found, size_wh)
        self._identities.keep(key, identity)
        return FoundInImage(detections, size_wh)

    def _recall_or_fetch(
        self,
        value: Any,
        task_id: int | None,
        thresholds: Mapping[str, float],
        studio: Studio | None,
        caller: _Caller,
    ) -> FoundInImage | _NewImage:
        """What is remembered of an image, or its bytes; they are fetched only where that is needed to know it again."""
        key = _key_of(value, studio, caller.uploads)
        known = self._identities.find(key)
        found = self._remembered.find(known.digest, thresholds) if known else None
        if known and found and known.is_lasting:
            return found
        source = self._source_of(value, task_id, studio, caller.uploads)
        if found is None:
            self._load(thresholds, caller)  # before the image takes memory, and a place that other weights' could have
        caller.check()
        fetched = self._fetch(value, source, studio, known.version if known and found else None, caller)
        if found and not fetched.content:
            return found
        identity = Identity(blake3(fetched.content).digest(), fetched.version, is_lasting(source, studio))
        found = self._remembered.find(identity.digest, thresholds)
        if found is None:
            return _NewImage(key, identity, fetched.content)
        self._identities.keep(key, identity)
        return found

    def uploads_of(self, project: str) -> ProjectUploads | None:
        """The project's uploads on the disk, None where none are read there."""
        return uploads_of(self._settings.label_studio_media_root, project)

    def _source_of(
        self, value: Any, task_id: int | None, studio: Studio | None, uploads: ProjectUploads | None
    ) -> Source:
        root = self._settings.local_files_document_root
        if studio is None:
            return resolve_source(value, task_id, None, root)
        return resolve_source(value, task_id, studio.url, root, studio.outside_url, uploads=uploads)

    def _load(self, fingerprints: Iterable[str], caller: _Caller) -> None:
        for fingerprint in fingerprints:
            self._pool.load(fingerprint, caller.is_abandoned)

    def _show(
        self, content: bytes, weights: Mapping[str, WeightsInfo], caller: _Caller
    ) -> tuple[dict[str, Shown], tuple[int, int], str]:
        """What each of the weights is shown of the image, by their fingerprint, its size (width, height), a remark."""
        with self._place_to_decode(caller), metrics.DECODE_SECONDS.time():
            image = decode_image(content, self._settings.max_image_megapixels, self._enough_px(weights.values()))
            shown = {
                fingerprint: show(
                    view_for(info),
                    image.pixels,
                    image.size_wh,
                    partial(self._pool.letterbox, fingerprint, is_abandoned=caller.is_abandoned),
                )
                for fingerprint, info in weights.items()
            }
            return shown, image.size_wh, image.remark

    @contextmanager
    def _place_to_decode(self, caller: _Caller) -> Iterator[None]:
        """One of a few. Raises AbandonedError where nobody waits any more."""
        places = self._decoding[caller.priority]
        while not places.acquire(timeout=_LOOK_FOR_CLIENT_S if caller.is_abandoned else None):
            caller.check()
        try:
            caller.check()
            yield
        finally:
            places.release()

    def _enough_px(self, weights: Iterable[WeightsInfo]) -> int | None:
        """How long the longer side of a decoded image should be at least, where less than all of it will do."""
        if self._settings.decode == "full":
            return None
        wanted = [view_for(each).enough_px(each) for each in weights]
        return None if None in wanted else max(filter(None, wanted))

    def _detect(self, fingerprint: str, shown: Shown, threshold: float, caller: _Caller) -> Detections:
        try:
            found = self._pool.detect_all(fingerprint, shown.images, threshold, caller.priority, caller.is_abandoned)
        except (WeightsError, DetectorError, AbandonedError):
            raise
        except Exception as error:  # whatever the model raises; the detector has logged it whole
            raise DetectorError(f"the model failed on the image: {first_line(error)}") from None
        return shown.merge(found)

    def _fetch(
        self, value: Any, source: Source, studio: Studio | None, known: Version | None, caller: _Caller
    ) -> Fetched:
        try:
            if isinstance(source, Inline):
                return self._fetcher.fetch(source, studio, known, caller.line)
            with metrics.FETCH_SECONDS.time():
                return self._fetcher.fetch(source, studio, known, caller.line)
        except (ImageError, StudioError) as error:
            caller.check_line()  # before Label Studio is asked whether it is there
            # What is wrong with an upload may be so of its file, or of what Label Studio sent: it is asked once in 2 s.
            remote = source.remote if isinstance(source, Upload) else source
            is_passing = (
                studio is not None
                and isinstance(remote, Remote)
                and is_same_origin(remote.url, studio.url)
                and studio.is_unreachable()
            )
            address = redact(value) if isinstance(error, ImageError) else None
            raise _TaskError(error.kind, str(error), address, is_passing=is_passing) from None


def _key_of(value: Any, studio: Studio | None, uploads: ProjectUploads | None) -> bytes:
    return identity_key(value, studio, studio.known_outside_url if studio else None, uploads)


def _lowest_thresholds(controls: Sequence[ServedControl]) -> dict[str, float]:
    """What is asked of each of the weights, by their fingerprint."""
    thresholds: dict[str, float] = {}
    for served in controls:
        lowest = served.label_map.lowest_threshold
        fingerprint = served.weights.fingerprint
        thresholds[fingerprint] = min(lowest, thresholds.get(fingerprint, 1.0))
    return thresholds


def _regions_on(found: FoundInImage, item_index: int | None, controls: Sequence[ServedControl]) -> list[Region]:
    regions: list[Region] = []
    for served in controls:
        detections = found.detections[served.weights.fingerprint]
        regions += make_regions(detections, served.control, served.label_map, found.size_wh, item_index)
    return regions


def _prediction_of(regions: list[Region], plan: ProjectPlan) -> Prediction:
    return {"result": regions, "score": task_score(regions), "model_version": plan.model_version}


def _count(regions: Sequence[Region]) -> None:
    metrics.TASKS.labels("predicted").inc()
    metrics.REGIONS.inc(count_boxes(regions))


def _checked(prediction: Any, plan: ProjectPlan) -> Prediction:
    """What `finish` returned, if it can be sent; its version is the plan's, by which Label Studio knows it again."""
    if not isinstance(prediction, dict):
        raise TypeError(f"finish should return a prediction, a dict, not {type(prediction).__name__}")
    json.dumps(prediction, allow_nan=False)
    return {**prediction, "model_version": plan.model_version}


def host_of(task: Task, plan: ProjectPlan, studio: Studio | None, uploads: ProjectUploads | None = None) -> str:
    """Where the task's first image lies: a host, "bucket" addresses by their bucket, "" for what is no address.

    Uploads that are read from the disk ask no host, and so don't wait for those that do. Once Label Studio had to be
    asked for one all the same, the project's count for it, until one is read from the disk again.
    """
    data = task.get("data")
    if not isinstance(data, Mapping) or not plan.controls:
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
                return source.place
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
    by_place: dict[_Place, list[ServedControl]] = {}
    for served in plan.controls:
        by_place.setdefault(_place_of(served.control), []).append(served)
    for place, image, item_index in _images_at(task, by_place):
        yield image, item_index, by_place[place]


def _images_at(task: Task, places: Iterable[_Place]) -> Iterator[tuple[_Place, Any, int | None]]:
    """Where in a task an image is, its value, and its page of a `valueList`. Raises ImageError."""
    data = _data_of(task)
    wanted = list(dict.fromkeys(places))
    # A task may lack one of several images, but not all.
    for place in [place for place in wanted if find_value(data, place.value)] or wanted:
        for item_index, image in enumerate(_images_of(data, place.value, place.is_list)):
            yield place, image, item_index if place.is_list else None


def _place_of(control: Control) -> _Place:
    return _Place(control.value, control.is_list)


def _data_of(task: Task) -> Mapping[str, Any]:
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise ImageError(FailureKind.WRONG_TYPE, "the task has no data")
    return data


@lru_cache(maxsize=1000)
def _say_once(model_version: str, reason: str) -> None:
    """Of labels that come with the tasks, one line for all the tasks that lack the same."""
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
            f"labeling config, for it has {_keys_of(images) or 'nothing in it'}",
        )
    return [images]


def _field_of_image(images: Mapping[str, Any]) -> str:
    """Which field of an object has the image's address, as far as can be seen."""
    texts = {key: item for key, item in images.items() if isinstance(item, str) and re.fullmatch(r"\w+", key)}
    return next((key for key, item in texts.items() if "/" in item), None) or next(
        (key for key, item in texts.items() if "." in item), "url"
    )


def _keys_of(data: Mapping[str, Any]) -> str:
    shown = ", ".join(f'"{str(key)[:_MAX_SHOWN_KEY]}"' for key in list(data)[:_SHOWN_KEYS])
    return f"{shown} and {len(data) - _SHOWN_KEYS} more" if len(data) > _SHOWN_KEYS else shown
