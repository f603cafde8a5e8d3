"""Tasks to predictions: in order, by the deadline, and a task that fails fails alone."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from yolo_backend import metrics
from yolo_backend.detection.batching import BULK, PERSON, ModelPool, WeightsLoadingError
from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.detection.weights import find_weights
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.images.fetch import ImageFetcher
from yolo_backend.images.sources import redact, resolve_source
from yolo_backend.labeling import Control, LabelingConfigError, LabelMap, map_labels, parse_labeling_config
from yolo_backend.regions import Region, make_regions, task_score
from yolo_backend.settings import Settings, load_settings
from yolo_backend.studio import Studio, StudioError, Studios

log = logging.getLogger(__name__)

Task = Mapping[str, Any]
Prediction = dict[str, Any]

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


class Predictor:
    """Everything between a list of tasks and its predictions; one for each process."""

    def __init__(self, settings: Settings, pool: ModelPool | None = None) -> None:
        self.settings = settings
        self.studios = Studios(settings)
        self.pool = pool or _model_pool(settings)
        self._parallel_tasks = max(16, 2 * settings.batch_size)
        self._workers = {
            BULK: ThreadPoolExecutor(self._parallel_tasks, thread_name_prefix="task"),
            PERSON: ThreadPoolExecutor(settings.threads, thread_name_prefix="person"),
        }
        self._fetcher = ImageFetcher(
            timeout_s=settings.image_timeout_s,
            max_bytes=int(settings.max_image_megabytes * 1e6),
            connections=self._parallel_tasks,
            allowed_hosts=settings.allowed_image_hosts,
        )
        # A decoded photograph is large: only as many at a time as there are cores to decode them, people's apart.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._decoding = {BULK: threading.BoundedSemaphore(cores), PERSON: threading.BoundedSemaphore(cores)}

    def plan(self, label_config: str, wait_s: float | None = 0) -> ProjectPlan:
        """How this labeling config is served.

        Raises LabelingConfigError for a config that can't be, WeightsError for weights that can't be had, and
        WeightsLoadingError where they weren't read within `wait_s` (None: wait as long as it takes).
        """
        ends_at = None if wait_s is None else time.monotonic() + wait_s
        served = []
        for control in parse_labeling_config(label_config):
            name = control.model_path or self.settings.model_name
            if wait_s == 0:
                weights = self.pool.info(name)
            else:
                left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
                weights = self.pool.wait_for_info(name, left_s)
            if control.needs_obb and weights.task != "obb":
                raise LabelingConfigError(f'model_obb="true" wants OBB weights: {name} are {weights.task} weights')
            label_map = map_labels(control, weights.class_names, self.settings.model_score_threshold)
            served.append(ServedControl(control, weights, name, label_map))
        if not any(item.label_map.label_of_class for item in served):
            raise LabelingConfigError(_nothing_matches(served))
        return ProjectPlan(tuple(served), self._model_version(served))

    def predict(
        self,
        tasks: Sequence[Task],
        label_config: str,
        *,
        project: str | None = None,
        context: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
    ) -> list[Any]:
        """One entry for each task, in order: its prediction, or `[]` where it failed or isn't ready by the deadline.

        With `context`, a person's smart tool, the entry of a failure is `{"result": []}`. Raises LabelingConfigError
        and WeightsError, for they concern all tasks.
        """
        limit_s = self.settings.predict_deadline_s if deadline_s is None else deadline_s
        ends_at = time.monotonic() + limit_s if limit_s else float("inf")
        try:
            plan = self.plan(label_config, wait_s=limit_s or None)
        except WeightsLoadingError as error:
            return not_ready(tasks, context, str(error))
        studio = self.studios.of_project(project)
        predictions = self._predict_until(ends_at, tasks, plan, studio, PERSON if len(tasks) == 1 else BULK)
        return [nothing(context) if prediction is None else prediction for prediction in predictions]

    def close(self) -> None:
        """Finish what is under way and free the models."""
        for workers in self._workers.values():
            workers.shutdown(wait=True, cancel_futures=True)
        self.pool.close()

    def _predict_until(
        self, ends_at: float, tasks: Sequence[Task], plan: ProjectPlan, studio: Studio | None, priority: int
    ) -> list[Prediction | None]:
        predictions: list[Prediction | None] = [None] * len(tasks)
        under_way: dict[Future[Prediction | None], int] = {}
        waiting = iter(range(len(tasks)))
        while True:
            # Few at a time, so that requests side by side take turns.
            while len(under_way) < self._parallel_tasks and (index := next(waiting, None)) is not None:
                future = self._workers[priority].submit(self._predict_alone, tasks[index], plan, studio, priority)
                under_way[future] = index
            if not under_way:
                return predictions
            left_s = None if ends_at == float("inf") else max(0.0, ends_at - time.monotonic())
            done, _ = wait(under_way, timeout=left_s, return_when=FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                predictions[under_way.pop(future)] = future.result()
        for future in under_way:
            future.cancel()
        late = len(under_way) + sum(1 for _ in waiting)
        metrics.TASKS.labels("not ready").inc(late)
        log.warning(
            "%d of %d tasks were not ready by the deadline (PREDICT_DEADLINE_SECONDS): Retrieve Predictions again "
            "asks for the rest",
            late,
            len(tasks),
        )
        return predictions

    def _predict_alone(self, task: Task, plan: ProjectPlan, studio: Studio | None, priority: int) -> Prediction | None:
        """The prediction of one task, or None and one line in the log that says why."""
        with metrics.IN_FLIGHT.track_inprogress():
            try:
                regions = self._task_regions(task, plan, studio, priority)
            except (ImageError, StudioError) as error:
                metrics.IMAGE_FAILURES.labels(error.kind).inc()
                log.warning("Task %s is not predicted: %s", _task_id(task), error)
            except Exception:
                metrics.IMAGE_FAILURES.labels("internal").inc()
                log.exception("Task %s is not predicted", _task_id(task))
            else:
                metrics.TASKS.labels("predicted").inc()
                metrics.REGIONS.inc(len(regions))
                return {"result": regions, "score": task_score(regions), "model_version": plan.model_version}
        metrics.TASKS.labels("failed").inc()
        return None

    def _task_regions(self, task: Task, plan: ProjectPlan, studio: Studio | None, priority: int) -> list[Region]:
        regions: list[Region] = []
        by_key: dict[tuple[str, bool], list[ServedControl]] = {}
        for served in plan.controls:
            by_key.setdefault((served.control.data_key, served.control.is_list), []).append(served)
        data = task.get("data")
        given = {key: controls for key, controls in by_key.items() if isinstance(data, Mapping) and data.get(key[0])}
        # A task may lack one of several images, but not all.
        for (data_key, is_list), controls in (given or by_key).items():
            for item_index, value in enumerate(_image_values(task, data_key, is_list)):
                try:
                    found, size_wh = self._detect(value, _task_id(task), controls, studio, priority)
                except ImageError as error:
                    raise ImageError(error.kind, f"{redact(value)}: {error}") from None
                for served in controls:
                    regions += make_regions(
                        found[served.weights_name],
                        served.control,
                        served.label_map,
                        size_wh,
                        item_index if is_list else None,
                    )
        return regions

    def _detect(
        self, value: Any, task_id: int | None, controls: Sequence[ServedControl], studio: Studio | None, priority: int
    ) -> tuple[dict[str, Detections], tuple[int, int]]:
        """The detections of one image for each of the weights that its controls use, and the image's size."""
        source = resolve_source(value, task_id, studio.url if studio else None, self.settings.local_files_document_root)
        content = self._fetcher.fetch(source, studio)
        thresholds: dict[str, float] = {}
        for served in controls:
            lowest = served.label_map.lowest_threshold
            thresholds[served.weights_name] = min(lowest, thresholds.get(served.weights_name, 1.0))
        for name in thresholds:  # before it takes a place that other weights' images could have
            self.pool.load(name)
        with self._decoding[priority]:
            image = decode_image(content, self.settings.max_image_megapixels)
            letterboxed = {name: self.pool.letterbox(name, image) for name in thresholds}
            size_wh = (image.shape[1], image.shape[0])
            del image, content
        found = {
            name: self.pool.detect(name, letterboxed.pop(name), threshold, priority)
            for name, threshold in thresholds.items()
        }
        return found, size_wh

    def _model_version(self, served: Sequence[ServedControl]) -> str:
        ingredients = [
            {
                "revision": REVISION,
                "weights": item.weights.fingerprint,
                "image_size": item.weights.image_size,
                "iou_threshold": self.settings.model_iou_threshold,
                "max_detections": self.settings.model_max_detections,
                "control": [item.control.from_name, item.control.to_name, item.control.data_key, item.control.is_list],
                "labels": sorted(item.label_map.label_of_class.items()),
                "thresholds": sorted(item.label_map.threshold_of_class.items()),
            }
            for item in served
        ]
        digest = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
        return f"{Path(served[0].weights_name).stem}-{digest[:8]}"


def nothing(context: Mapping[str, Any] | None) -> Any:
    """The entry of a task without a prediction; a smart tool's page takes no list."""
    return {"result": []} if context else []


def not_ready(tasks: Sequence[Task], context: Mapping[str, Any] | None, reason: str) -> list[Any]:
    """The answer where no task could be worked on; one line in the log says why."""
    log.warning("%d tasks are not predicted: %s", len(tasks), reason)
    metrics.TASKS.labels("not ready").inc(len(tasks))
    return [nothing(context) for _ in tasks]


@lru_cache(maxsize=1)
def default_predictor() -> Predictor:
    """The process's predictor, by the environment's settings, made when it is first needed."""
    return Predictor(load_settings())


def _model_pool(settings: Settings) -> ModelPool:
    def load(name: str) -> Any:
        from yolo_backend.detection.engine import Engine  # brings torch, which takes seconds to import

        return Engine(
            find_weights(name, settings.model_root, may_download=name == settings.model_name),
            device=settings.device,
            image_size=settings.model_image_size,
            iou_threshold=settings.model_iou_threshold,
            max_detections=settings.model_max_detections,
        )

    return ModelPool(load, max_models=settings.max_models, batch_size=settings.batch_size)


def _image_values(task: Task, data_key: str, is_list: bool) -> Sequence[Any]:
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise ImageError("wrong_type", "the task has no data")
    if data_key not in data:
        raise ImageError("missing_key", f'the task\'s data has no "{data_key}"')
    value = data[data_key]
    if is_list and isinstance(value, list):
        if not value:
            raise ImageError("missing_key", f'"{data_key}" is an empty list')
        return value
    return [value]


def _task_id(task: Task) -> int | None:
    task_id = task.get("id")
    return task_id if isinstance(task_id, int) else None


def _nothing_matches(served: Sequence[ServedControl]) -> str:
    labels = list(dict.fromkeys(label for item in served for label in item.label_map.labels_without_class))
    weights = ", ".join(dict.fromkeys(item.weights_name for item in served))
    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    if not labels:
        return "The RectangleLabels have no Label"
    return f"None of the labels {shown} is a class of {weights}"
