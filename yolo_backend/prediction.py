"""A request's tasks to its answer: by the deadline, in order; what is left goes on and is delivered afterwards."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from yolo_backend import metrics
from yolo_backend.cores import usable_cores
from yolo_backend.delivery import Delivery
from yolo_backend.detection.batching import BULK, PERSON, ModelPool, WeightsLoadingError
from yolo_backend.detection.weights import WeightsError, find_weights
from yolo_backend.failures import Failure, FailureLog
from yolo_backend.jobs import Job, JobKey, Jobs, Progress, Recall, TooManyJobsError
from yolo_backend.labeling import LabelingConfigError
from yolo_backend.parallel import in_parallel
from yolo_backend.plans import ProjectPlan, make_plan
from yolo_backend.protocol import Prediction, Task, project_id_of, task_id_of
from yolo_backend.settings import Settings, load_settings
from yolo_backend.smart_tools import SmartTools, meant_boxes
from yolo_backend.studio import Studios
from yolo_backend.tasks import Finish, IsAbandoned, TaskImage, TaskPredictor
from yolo_backend.tickets import State

log = logging.getLogger(__name__)

Outcome = Prediction | Failure

_LOOK_FOR_CLIENT_S = 0.25
_CLOSE_WAIT_S = 5.0
_PARALLEL_TASKS, _MAX_PARALLEL_TASKS = 16, 128


@dataclass(frozen=True)
class _Request:
    """What the tasks of a request have in common."""

    plan: ProjectPlan
    project: str | None
    ends_at: float
    is_abandoned: IsAbandoned
    finish: Finish | None


class Predictor:
    """Everything between a list of tasks and its predictions; one for each process."""

    def __init__(self, settings: Settings, pool: ModelPool | None = None) -> None:
        self.settings = settings
        self.studios = Studios(settings)
        self.pool = pool or _model_pool(settings)
        self.failures = FailureLog()
        self.is_draining = False
        self._jobs = Jobs()
        self._smart_tools = SmartTools()
        self._workers = {PERSON: ThreadPoolExecutor(settings.threads, thread_name_prefix="person")}
        self._tasks = TaskPredictor(settings, self.pool, _MAX_PARALLEL_TASKS)

    def plan(self, label_config: str, wait_s: float | None = 0) -> ProjectPlan:
        """How this labeling config is served; raises as `make_plan` does."""
        return make_plan(label_config, self.settings, self.pool, wait_s)

    def predict(
        self,
        tasks: Sequence[Task],
        label_config: str,
        *,
        project: str | None = None,
        context: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        is_abandoned: IsAbandoned | None = None,
        finish: Finish | None = None,
    ) -> list[Any]:
        """One entry for each task, in order: its prediction, or `[]` where it failed or isn't ready by the deadline.

        Several tasks are bulk work: what isn't ready goes on behind, and is pushed to Label Studio or kept for the
        next click. One task is a person's, who goes first; it is dropped when `is_abandoned` says that they have
        gone. With `context`, their smart tool, an entry has what they meant, or is `{"result": []}`. `finish` gets each
        task and its prediction, and returns the prediction to deliver. Raises LabelingConfigError and WeightsError,
        for they concern all tasks.
        """
        if not tasks:
            return []
        limit_s = self.settings.predict_deadline_s if deadline_s is None else deadline_s
        ends_at = time.monotonic() + limit_s if limit_s else float("inf")
        is_abandoned = is_abandoned or _never
        try:
            plan = self.plan(label_config, wait_s=0 if is_abandoned() else limit_s or None)
        except WeightsLoadingError as error:
            return not_ready(tasks, context, str(error))
        request = _Request(plan, project, ends_at, is_abandoned, finish)
        if context:
            predictions = [self._predict_meant(task, request, context) for task in tasks]
        elif len(tasks) == 1:
            predictions = [self._predict_alone(tasks[0], request)]
        else:
            try:
                predictions = self._predict_bulk(tasks, request)
            except TooManyJobsError as error:
                return not_ready(tasks, context, str(error))
        return [nothing(context) if prediction is None else prediction for prediction in predictions]

    def stream(self, tasks: Iterable[Task], plan: ProjectPlan, project: str) -> Iterator[tuple[Task, Outcome]]:
        """Each task with its prediction or why there is none, as they are done; nothing is delivered, or kept.

        Several are under way at a time, and no more are taken from `tasks` than that.
        """
        request = _Request(plan, project, float("inf"), _never, None)
        return in_parallel(lambda task: self._attempt(task, request, BULK), tasks, self._parallel_tasks(plan))

    def images(self, task: Task, plan: ProjectPlan, project: str) -> list[TaskImage]:
        """The task's images as the labeling page shows them. Raises ImageError, StudioError, requests.Timeout."""
        return self._tasks.images(task, plan, self.studios.of_project(project))

    def progress(self) -> list[Progress]:
        """How far the work on each project is."""
        return self._jobs.progress()

    def drain(self, timeout_s: float) -> None:
        """Start nothing more, finish what runs, and deliver it."""
        self.is_draining = True
        self._jobs.stop()
        ends_at = time.monotonic() + timeout_s
        while self._jobs.all() and time.monotonic() < ends_at:
            time.sleep(0.1)

    def close(self) -> None:
        """Finish what is under way and free the models."""
        self._jobs.stop()
        for workers in self._workers.values():
            workers.shutdown(wait=True)
        # A process that ends while a thread is in a model's code is aborted; one that hangs is left to itself.
        self.pool.close(_CLOSE_WAIT_S)

    def _predict_bulk(self, tasks: Sequence[Task], request: _Request) -> list[Prediction | None]:
        key = self._key(request)
        # A `finish` is somebody's own, and may take its time.
        recall = self._recall_for(request) if request.finish is None else None
        job, ask = self._jobs.ask(key, tasks, lambda: self._start_job(key, request), recall)
        predictions: list[Prediction | None] = [None] * len(tasks)
        is_there = False
        try:
            is_there = job.wait(ask, request.ends_at, request.is_abandoned)
            if is_there:
                predictions = job.claim(ask)
        finally:
            left = job.leave(ask)
        if left:
            if not is_there:
                why = ", and nobody waits for them"
            elif time.monotonic() < request.ends_at:
                why = ", for Label Studio is away"
            else:
                why = " in time (PREDICT_DEADLINE_SECONDS)"
            metrics.TASKS.labels("not ready").inc(left)
            log.warning(
                "Project %s: %d of %d tasks are not ready%s: the work goes on, and its results are %s",
                key.project,
                left,
                len(tasks),
                why,
                "kept for the next click" if job.trouble else "pushed to Label Studio",
            )
        return predictions

    def _predict_meant(self, task: Task, request: _Request, context: Mapping[str, Any]) -> Prediction | None:
        # What a smart tool gets isn't stored, so it has no part in what is delivered once.
        project = project_id_of(request.project)
        click = self._smart_tools.read(context, task, project)
        if click is None:
            log.info("Task %s: the smart tool brings nothing, for only a rectangle with a label does", task_id_of(task))
            return None
        prediction = self._work_alone(task, request)
        if prediction is None:
            return None
        meant = meant_boxes(click, prediction)
        if meant is None:
            log.info(
                "Task %s: the smart tool's rectangle brings nothing: no box of its label overlaps it by half, or it is "
                "there already",
                task_id_of(task),
            )
        else:
            self._smart_tools.gave(meant, task, project)
        return meant

    def _predict_alone(self, task: Task, request: _Request) -> Prediction | None:
        key = self._key(request)
        job = self._jobs.find(key)
        ticket = job.ticket(task) if job is not None else None
        prediction = ticket.prediction if ticket and ticket.state is State.READY else self._work_alone(task, request)
        job = job if job is not None else self._jobs.find(key)  # a bulk request may have come meanwhile
        if prediction and job is not None and not job.claim_alone(task, prediction, ticket):
            log.info("Task %s is answered with nothing: its prediction is delivered in another way", task_id_of(task))
            return None
        return prediction

    def _work_alone(self, task: Task, request: _Request) -> Prediction | None:
        is_over = threading.Event()
        future = self._workers[PERSON].submit(self._attempt, task, request, PERSON, is_over.is_set)
        while (left_s := request.ends_at - time.monotonic()) > 0 and not request.is_abandoned():
            done, _ = wait([future], min(_LOOK_FOR_CLIENT_S, left_s))
            if done:
                outcome = future.result()
                if isinstance(outcome, Failure):
                    self.failures.add(outcome)
                    log.warning("%s", outcome)
                    return None
                return outcome
        is_over.set()
        future.cancel()
        metrics.TASKS.labels("not ready").inc()
        why = "whoever asked has gone" if left_s > 0 else "it wasn't ready by the deadline (PREDICT_DEADLINE_SECONDS)"
        log.warning("Task %s is not predicted: %s", task_id_of(task), why)
        return None

    def _attempt(
        self, task: Task, request: _Request, priority: int, is_abandoned: IsAbandoned | None = None
    ) -> Outcome:
        return self._tasks.predict(
            task,
            request.plan,
            self.studios.of_project(request.project),  # asked each time, for its token may be a new one
            priority,
            project=project_id_of(request.project),
            is_abandoned=is_abandoned,
            finish=request.finish,
        )

    def _recall_for(self, request: _Request) -> Recall:
        studio = self.studios.of_project(request.project)
        return lambda task: self._tasks.recall(task, request.plan, studio)

    def _start_job(self, key: JobKey, request: _Request) -> Job:
        def is_current(label_config: str) -> bool:
            try:
                return self.plan(label_config).model_version == key.model_version
            except (LabelingConfigError, WeightsError, WeightsLoadingError):  # of other labels or weights, all of them
                return False

        parallel = self._parallel_tasks(request.plan)
        if BULK not in self._workers:  # for all jobs; how many are right, the first model tells
            self._workers[BULK] = ThreadPoolExecutor(parallel, thread_name_prefix="task")
        job = Job(
            key,
            lambda task: self._attempt(task, request, BULK),
            self._workers[BULK].submit,
            parallel=parallel,
            failures=self.failures,
        )
        Delivery(job, self._jobs, lambda: self.studios.of_project(request.project), is_current, self.failures).start()
        return job

    def _parallel_tasks(self, plan: ProjectPlan) -> int:
        """How many tasks to have under way: so many that images wait for the model, and not the model for images."""
        in_models = sum({served.weights_name: served.weights.images_at_once for served in plan.controls}.values())
        wanted = 2 * max(in_models, usable_cores(), self.settings.batch_size or 0)
        return min(max(_PARALLEL_TASKS, wanted), _MAX_PARALLEL_TASKS)

    def _key(self, request: _Request) -> JobKey:
        studio = self.studios.of_project(request.project)
        return JobKey(studio.url if studio else "", project_id_of(request.project), request.plan.model_version)


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
        weights = find_weights(name, settings.model_root, may_download=name == settings.model_name)
        return _engine_class()(
            weights,
            device=settings.device,
            engine=settings.engine,
            export_folder=settings.model_dir / "exports",
            image_size=settings.model_image_size,
            iou_threshold=settings.model_iou_threshold,
            max_detections=settings.model_max_detections,
        )

    return ModelPool(
        load,
        max_models=settings.max_models,
        batch_size=settings.batch_size,
        detect_timeout_s=settings.detect_timeout_s,
    )


@lru_cache(maxsize=1)
def _engine_class() -> Callable[..., Any]:
    from yolo_backend.detection.engine import Engine  # brings torch, which takes seconds to import

    # Torch's half a million objects stay as they are: to look through them for garbage holds up everything for 0.25 s.
    gc.freeze()
    return Engine


def _never() -> bool:
    return False
