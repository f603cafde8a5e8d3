"""A request's tasks to its answer: by the deadline, in order; what is left goes on and is delivered afterwards."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import requests

from yolo_backend import metrics
from yolo_backend.cores import usable_cores
from yolo_backend.detection.catalog import Catalog
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.detector import BULK, PERSON, DetectorError
from yolo_backend.detection.pool import ModelPool, WeightsLoadingError
from yolo_backend.detection.trained import Shelves, publish_trained, trained_file, trained_name
from yolo_backend.detection.weights import WeightsError, WeightsFile, WeightsFolder, check_publishable, put_weights
from yolo_backend.failures import Failure, FailureLog
from yolo_backend.images.line import Line
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.labels.control import Control
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.plans import ProjectPlan, make_plan
from yolo_backend.messages import shortened
from yolo_backend.parallel import in_parallel
from yolo_backend.protocol import Prediction, Task, project_id_of, task_id_of
from yolo_backend.request_ids import carrying
from yolo_backend.serving.delivery import Delivery, Destination
from yolo_backend.serving.held import HeldBytes
from yolo_backend.serving.image import IsAbandoned
from yolo_backend.serving.jobs import Job, JobKey, Jobs, Recall, TooManyJobsError
from yolo_backend.serving.kept import kept_of
from yolo_backend.serving.ledger import Ledger
from yolo_backend.serving.progress import Progress
from yolo_backend.serving.project_keys import ProjectKeys
from yolo_backend.serving.scheduler import Scheduler
from yolo_backend.serving.smart_tools import SmartTools, meant_boxes
from yolo_backend.serving.task import Finish, TaskFile, TaskImage, TaskPredictor, host_of
from yolo_backend.serving.tickets import Ask, Ticket, TicketState, tickets_of
from yolo_backend.serving.version_records import VersionRecords
from yolo_backend.settings import Settings, load_settings

log = logging.getLogger(__name__)

Outcome = Prediction | Failure

_LOOK_FOR_CLIENT_S = 0.25
_CLOSE_WAIT_S = 5.0
_PARALLEL_TASKS, _MAX_PARALLEL_TASKS = 16, 128
_MAX_THREADS = 1024  # the scheduler and the server's threads say how many there are
# Can Label Studio answer us while it waits for our answer? One with a single thread can't.
_QUESTION_TIMEOUT_S = 4.0  # half of it for the answer
_SECOND_WAITS_S, _ASK_EACH_S = 2.0, 0.25
_IDS_PER_QUESTION = 500


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

    def __init__(self, settings: Settings, catalog: Catalog | None = None) -> None:
        self.settings = settings
        self.studios = Studios(settings)
        self.catalog = catalog or open_catalog(settings)
        self.failures = FailureLog()
        self.is_draining = False
        self.held = HeldBytes(settings.max_held_bytes)
        self._keys = ProjectKeys(self.studios, settings.model_dir)
        self._versions = VersionRecords(settings)
        self._jobs = Jobs()
        self._smart_tools = SmartTools()
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="task")
        self._threads_for_people = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="person")
        self._scheduler = Scheduler(self._threads.submit)
        self._tasks = TaskPredictor(settings, self.catalog.pool, _MAX_PARALLEL_TASKS)
        self.remarks = self._tasks.remarks

    def plan(self, label_config: str, wait_s: float | None = 0, *, project: str | None = None) -> ProjectPlan:
        """How this labeling config is served, in this project; raises as `make_plan` does.

        `project` is what Label Studio sends, such as "7.1699...": a project that was trained is served by weights of
        its own.
        """
        key = self._keys.known(project)
        trained = trained_name(key) if key else None
        plan = make_plan(label_config, self.settings, self.catalog, wait_s, trained=trained)
        self._versions.note(plan)
        return plan

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
        gone. With `context`, their smart tool, an entry has what they meant, or is `{"result": []}`. Where nothing is
        trained yet, no task is worked on. `finish` gets each task and its prediction, and returns the prediction to
        deliver. Raises LabelingConfigError and WeightsError, for they concern all tasks.
        """
        if not tasks:
            return []
        limit_s = self.settings.predict_deadline_s if deadline_s is None else deadline_s
        ends_at = time.monotonic() + limit_s if limit_s else float("inf")
        is_abandoned = is_abandoned or _never
        try:
            plan = self.plan(label_config, 0 if is_abandoned() else limit_s or None, project=project)
        except WeightsLoadingError as error:
            return not_ready(tasks, context, str(error))
        if plan.is_untrained:
            log.info(
                "Project %s: %d tasks get nothing, because nothing is trained yet", project_id_of(project), len(tasks)
            )
            return [nothing(context) for _ in tasks]
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
        for served in plan.controls:  # how many tasks are best under way, the model says
            with contextlib.suppress(WeightsError, DetectorError):  # which each task tells
                self.catalog.pool.load(served.weights.fingerprint)
        return in_parallel(lambda task: self._attempt(task, request, BULK), tasks, self._parallel_tasks(plan))

    def images(self, task: Task, plan: ProjectPlan, project: str) -> list[TaskImage]:
        """The task's images as the labeling page shows them. Raises ImageError, StudioError, requests.Timeout."""
        studio = self.studios.of_project(project)
        return self._tasks.images(task, plan, studio, project=project_id_of(project))

    def files(self, task: Task, controls: Sequence[Control], project: str) -> Iterator[TaskFile]:
        """The files of a task that these controls are on; raises as `TaskPredictor.files`."""
        studio = self.studios.of_project(project)
        return self._tasks.files(task, controls, studio, project=project_id_of(project))

    def publish(self, path: Path, name: str | None = None, project: str | int | None = None) -> str:
        """Let a finished file of weights serve as `name` (MODEL_NAME), as soon as it is exported and warmed up.

        With a `project`, its id or what Label Studio sends, it serves that project alone, where a control has no
        `model_path`. It is opened first: what can't be used isn't published. Returns its fingerprint. Raises
        WeightsError; StudioError and requests.Timeout where Label Studio doesn't say which project that is.
        """
        path = Path(path)
        if project is not None:
            return self._publish_trained(path, name, str(project))
        if name is None:
            name, *others = self.settings.model_names
            if others:
                raise WeightsError(
                    f"MODEL_NAME lists {', '.join(map(shortened, self.settings.model_names))}: give publish the name "
                    "of the file whose place the weights are to take"
                )
        check_publishable(path, name, self.settings.model_root)
        _engine_class()(path, device="cpu", engine="torch")
        return put_weights(path, name, self.settings.model_root)

    def _publish_trained(self, path: Path, name: str | None, project: str) -> str:
        if name is not None:
            raise WeightsError("Weights are published for a project, or under a name: give one of the two")
        key = self._keys.of(project)
        if key is None:
            raise WeightsError(
                f'Weights can\'t be published for project "{shortened(project)}", '
                "because it isn't known which one that is: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, and give a "
                "project's id"
            )
        file = trained_file(key, self.settings.model_dir)
        check_publishable(path, file.name, file.parent)
        _engine_class()(path, device="cpu", engine="torch")
        return publish_trained(path, key, self.settings.model_dir)

    def progress(self) -> list[Progress]:
        """How far the work on each project is."""
        return self._jobs.progress()

    def waiting(self) -> tuple[int, float]:
        """How many tasks of bulk work wait for a slot, and for how many seconds the first of them has."""
        return self._scheduler.waiting()

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
        self._threads.shutdown(wait=True)
        self._threads_for_people.shutdown(wait=True)
        # A process that ends while a thread is in a model's code is aborted; one that hangs is left to itself.
        self.catalog.close(_CLOSE_WAIT_S)

    def _predict_bulk(self, tasks: Sequence[Task], request: _Request) -> list[Prediction | None]:
        key = self._key(request)
        # A `finish` is somebody's own, and may take its time.
        recall = self._recall_for(request) if request.finish is None else None
        job, ask = self._jobs.ask(
            key,
            tasks,
            lambda: self._start_job(key, request),
            recall,
            lambda job, tickets: self._learn(job, request, job.ledger.doubtful(tickets)),
        )
        predictions: list[Prediction | None] = [None] * len(tasks)
        is_there = False
        try:
            studio = self._decide(job, ask, request)
            is_there = job.wait(ask, request.ends_at, request.is_abandoned)
            if is_there:
                limit = job.door.most_answered if studio else len(tasks)
                predictions = job.answer(ask, request.ends_at, limit, request.is_abandoned)
        finally:
            left = job.leave(ask)
        if left:
            if not is_there:
                why = ", and nobody waits for them"
            elif time.monotonic() < request.ends_at:
                why = ", because Label Studio is away"
            else:
                why = " in time (PREDICT_DEADLINE_SECONDS)"
            metrics.TASKS.labels("not ready").inc(left)
            log.warning(
                "Project %s: %d of %d tasks are not ready%s: the work goes on, and its results are %s",
                key.project,
                left,
                len(tasks),
                why,
                "kept for the next click" if job.last_error else "pushed to Label Studio",
            )
        return predictions

    def _decide(self, job: Job, ask: Ask, request: _Request) -> Studio | None:
        """Decide if this request's results are imported while it waits, or answered. Returns where to import them.

        Label Studio stores an answer's predictions one by one, an import's ten times as fast.
        """
        destination = self._destination(job, request)
        studio = destination.studio()
        if studio is None or request.is_abandoned():
            job.decide(ask, by_import=studio is not None)
            return studio
        is_answer_faster = job.door.is_answer_faster(len(ask.tickets))
        some = [ticket.task_id for ticket in ask.tickets if ticket and ticket.task_id is not None][:1]
        can_answer = not is_answer_faster and not job.last_error and self._learn(job, request, some)
        job.decide(ask, by_import=can_answer and not job.last_error)  # which may have come meanwhile
        return studio

    def _destination(self, job: Job, request: _Request) -> Destination:
        return Destination(job.key, lambda: self.studios.of_project(request.project))

    def _learn(self, job: Job, request: _Request, task_ids: Sequence[int], timeout_s: float | None = None) -> bool:
        """Ask Label Studio which of these hold a prediction already. Returns False if it doesn't answer now."""
        destination = self._destination(job, request)
        studio = destination.studio()
        if studio is None or not task_ids:
            return False
        began_at = time.monotonic()
        limit_s = timeout_s or _QUESTION_TIMEOUT_S
        for start in range(0, len(task_ids), _IDS_PER_QUESTION):
            asked = task_ids[start : start + _IDS_PER_QUESTION]
            left_s = min(request.ends_at, began_at + limit_s) - time.monotonic()
            if start and left_s <= 0:
                return False
            try:
                held = studio.tasks_holding(destination.project, job.key.model_version, asked, max(0.1, left_s))
            except (StudioError, requests.Timeout):
                return False
            job.ledger.learn(asked, held, began_at)
        return True

    def _predict_meant(self, task: Task, request: _Request, context: Mapping[str, Any]) -> Prediction | None:
        # What a smart tool gets isn't stored, so it has no part in what is delivered once.
        project = project_id_of(request.project)
        click = self._smart_tools.read(context, task, project)
        if click is None:
            log.info(
                "Task %s: the smart tool found nothing, because it needs a rectangle with a label", task_id_of(task)
            )
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
        (fresh,) = tickets_of([task])
        key = self._key(request)
        known = self._job(key, request).ledger.known(fresh)
        is_ready = known is not None and known.state in {TicketState.READY, TicketState.LEASED} and known.packed
        prediction = known.prediction if known and is_ready else self._work_alone(task, request)
        # The job of before the work may be forgotten by now, and another in its place.
        if prediction is None or self._claim_alone(self._job(key, request), fresh, prediction, request):
            return prediction
        log.info("Task %s is answered with nothing: its prediction is delivered in another way", task_id_of(task))
        return None

    def _claim_alone(self, job: Job, fresh: Ticket, prediction: Prediction, request: _Request) -> bool:
        """Returns True if this person's answer may bring the prediction. If not, waits until Label Studio holds it.

        Their page reads the task again after the answer, so they see what Label Studio holds by then.
        """
        if not job.key.studio_url and job.ledger.known(fresh) is None:
            return True  # who asks is no Label Studio that we know of
        ends_at = min(time.monotonic() + _SECOND_WAITS_S, request.ends_at)
        while True:
            doubtful = job.ledger.doubtful([fresh])
            is_asked = self._learn(job, request, doubtful, 2 * max(_ASK_EACH_S, ends_at - time.monotonic()))
            lost_after_s = _SECOND_WAITS_S if self._destination(job, request).studio() is None else float("inf")
            if job.ledger.claim_alone(fresh, prediction, is_asked=is_asked, lost_after_s=lost_after_s):
                return True
            is_known_to_be_held = bool(doubtful) and not job.ledger.known(fresh)
            if is_known_to_be_held or time.monotonic() >= ends_at or request.is_abandoned():
                return False
            time.sleep(_ASK_EACH_S)

    def _work_alone(self, task: Task, request: _Request) -> Prediction | None:
        line = Line()
        future = self._threads_for_people.submit(carrying(self._attempt), task, request, PERSON, line)
        while (left_s := request.ends_at - time.monotonic()) > 0 and not request.is_abandoned():
            done, _ = wait([future], min(_LOOK_FOR_CLIENT_S, left_s))
            if done:
                outcome = future.result()
                if isinstance(outcome, Failure):
                    self.failures.add(outcome)
                    log.warning("%s", outcome)
                    return None
                return outcome
        line.hang_up()  # so that nobody else waits for the thread
        future.cancel()
        metrics.TASKS.labels("not ready").inc()
        why = "whoever asked has gone" if left_s > 0 else "it wasn't ready by the deadline (PREDICT_DEADLINE_SECONDS)"
        log.warning("Task %s is not predicted: %s", task_id_of(task), why)
        return None

    def _attempt(self, task: Task, request: _Request, priority: int, line: Line | None = None) -> Outcome:
        return self._tasks.predict_task(
            task,
            request.plan,
            self.studios.of_project(request.project),  # asked each time, for its token may be a new one
            priority,
            project=project_id_of(request.project),
            line=line,
            finish=request.finish,
        )

    def _recall_for(self, request: _Request) -> Recall:
        studio, project = self.studios.of_project(request.project), project_id_of(request.project)
        return lambda task: self._tasks.recall(task, request.plan, studio, project=project)

    def _job(self, key: JobKey, request: _Request) -> Job:
        return self._jobs.of(key, lambda: self._start_job(key, request))

    def _start_job(self, key: JobKey, request: _Request) -> Job:
        def is_current(label_config: str) -> bool:
            try:
                return self.plan(label_config, project=request.project).model_version == key.model_version
            except (LabelingConfigError, WeightsError, WeightsLoadingError):  # of other labels or weights, all of them
                return False

        def studio() -> Studio | None:
            return self.studios.of_project(request.project)

        def keep(task: Task) -> Task:
            return task if request.finish else kept_of(task, request.plan)  # a class's own hook may want all of it

        uploads = self._tasks.uploads_of(key.project)

        def deliver(job: Job) -> None:
            Delivery(job, self._jobs, Destination(key, studio), is_current, self.failures).start()

        return Job(
            key,
            lambda task, slot: self._attempt(task, request, BULK, Line(slot.talks_to)),
            self._scheduler,
            parallel=self._parallel_tasks(request.plan),
            failures=self.failures,
            ledger=Ledger(self.held, keep),
            door=self._jobs.door(key),
            host_of=lambda task: host_of(task, request.plan, studio(), uploads),
            deliver=deliver,
        )

    def _parallel_tasks(self, plan: ProjectPlan) -> int:
        """How many tasks to have under way, so that the model never waits for images."""
        runtimes = self.catalog.pool.runtimes()
        fingerprints = {served.weights.fingerprint for served in plan.controls} & runtimes.keys()
        in_models = sum(runtimes[fingerprint].images_at_once for fingerprint in fingerprints)
        wanted = 2 * max(in_models, usable_cores(), self.settings.batch_size or 0)
        return min(max(_PARALLEL_TASKS, wanted), _MAX_PARALLEL_TASKS)

    def _key(self, request: _Request) -> JobKey:
        studio = self.studios.of_project(request.project)
        return JobKey(
            studio.url if studio else "",
            project_id_of(request.project),
            request.plan.model_version,
            request.project or "",
        )


def nothing(context: Mapping[str, Any] | None) -> Any:
    """The entry of a task without a prediction; a smart tool's page takes no list."""
    return {"result": []} if context else []


def not_ready(tasks: Sequence[object], context: Mapping[str, Any] | None, reason: str) -> list[Any]:
    """The answer where no task could be worked on; one line in the log says why."""
    log.warning("%d tasks are not predicted: %s", len(tasks), reason)
    metrics.TASKS.labels("not ready").inc(len(tasks))
    return [nothing(context) for _ in tasks]


class _DefaultPredictor:
    """The process's predictor, by the environment's settings, made when it is first needed. Raises SettingsError."""

    def __init__(self) -> None:
        self._making = threading.Lock()  # lru_cache has none: all that come before the first is made would make one
        self._made: Predictor | None = None

    def __call__(self) -> Predictor:
        with self._making:
            if self._made is None:
                self._made = Predictor(load_settings())
                self._made.catalog.watch()
            return self._made

    def cache_clear(self) -> None:
        """Forget it, without closing it; for tests."""
        with self._making:
            self._made = None


default_predictor = _DefaultPredictor()


def open_catalog(settings: Settings) -> Catalog:
    """The weights that serve with these settings; to be closed."""

    def load(file: WeightsFile, tell: Callable[[WeightsInfo], None]) -> Any:
        known = {"fingerprint": file.fingerprint, "thresholds": file.thresholds, "tell": tell}
        return _engine_class().as_set(file.path, settings, **known)

    pool = ModelPool(
        load,
        max_models=settings.max_models,
        batch_size=settings.batch_size,
        detect_timeout_s=settings.detect_timeout_s,
    )
    shelves = Shelves(WeightsFolder(settings.model_root, settings.model_names), settings.model_dir)
    return Catalog(shelves, pool)


@lru_cache(maxsize=1)
def _engine_class() -> Any:
    from yolo_backend.detection.engine import Engine  # brings torch, which takes seconds to import

    # Torch's half a million objects stay as they are: to look through them for garbage holds up everything for 0.25 s.
    gc.freeze()
    return Engine


def _never() -> bool:
    return False
