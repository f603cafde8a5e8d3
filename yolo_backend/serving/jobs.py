"""Work under way: each task of a project is predicted once, whoever asks for it, and delivered once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from yolo_backend import metrics, request_ids
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import CommonCause, Failure, FailureLog
from yolo_backend.protocol import Prediction, Task, task_id_of
from yolo_backend.serving.door import Door
from yolo_backend.serving.ledger import Ledger
from yolo_backend.serving.outage import Outage
from yolo_backend.serving.progress import Progress
from yolo_backend.serving.scheduler import Scheduler, Slot
from yolo_backend.serving.tickets import Ask, Ticket, TicketState, pack, tickets_of

log = logging.getLogger(__name__)

Recall = Callable[[Task], Prediction | None]

_MAX_TASKS = 100_000
_MAX_JOBS = 100
_FINISHED_KEPT = 10
_KEPT_S = 24 * 3600.0
_UNUSED_S = 300.0
_RATE_OVER_S = 60.0
_LOOK_FOR_CLIENT_S = 0.5
_RECALL_FOR_S = 0.5
_AWAY_PATIENCE_S = 4.0
_AWAY = "Label Studio doesn't answer at LABEL_STUDIO_URL: the work goes on when it does"


class TooManyJobsError(Exception):
    """There is no room for another project's work now."""


@dataclass(frozen=True)
class JobKey:
    """Whose predictions: where Label Studio is, its project, and the version of what comes out.

    `sent_as` also says when the project was made: one of before with the same id may have had other weights, and what
    isn't current for the one is for the other.
    """

    studio_url: str
    project: str
    model_version: str
    sent_as: str = ""

    def replaces(self, other: JobKey) -> bool:
        """Returns True if this is another version for the same project."""
        same_project = (self.studio_url, self.project) == (other.studio_url, other.project)
        return bool(self.project) and same_project and self.model_version != other.model_version


class Job:
    """The work on a project at one version. Safe to share between threads.

    `attempt` turns a task into its prediction or a Failure and never raises; `host_of` says where its image lies.
    """

    def __init__(
        self,
        key: JobKey,
        attempt: Callable[[Task, Slot], Prediction | Failure],
        scheduler: Scheduler,
        *,
        parallel: int,
        failures: FailureLog,
        ledger: Ledger | None = None,
        door: Door | None = None,
        host_of: Callable[[Task], str] = lambda _: "",
        deliver: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self.key = key
        self.ledger = ledger or Ledger()
        self.door = door or Door()
        self.last_error: str | None = None
        self.is_superseded = False  # another version was asked for
        self.is_stopping = False
        self.is_delivered = False
        self.used_at = time.monotonic()
        self.changed = threading.Event()
        self._attempt = attempt
        self._scheduler = scheduler
        self._parallel = parallel
        self._host_of = host_of
        self._deliver = deliver
        # Versions of one project have one share between them.
        self._project = (key.studio_url, key.project) if key.project else key
        self._finished_at: deque[float] = deque(maxlen=1000)
        self._common_cause = CommonCause(key.project, failures)
        self._outage = Outage()

    # For those who ask

    def ask(self, fresh: Sequence[Ticket], room: int = _MAX_TASKS) -> Ask:
        """Join the work on tasks by a new ticket for each. Of tasks that nobody asked for yet, `room` are taken."""
        ask = self.ledger.ask(fresh, 0 if self.is_stopping else room)
        for ticket in ask.new:
            self._queue(ticket)
        if self.is_stopping:
            self.ledger.give_up(TicketState.PENDING, is_begun=False)
        self._tell_left_out(ask.left_out, "the backend is stopping" if self.is_stopping else "too many wait already")
        self.resume()
        return ask

    def deliver(self) -> None:
        """Begin to import what no answer brings. `Jobs` calls it if nobody imports yet."""
        self._deliver(self)

    def decide(self, ask: Ask, *, by_import: bool) -> None:
        """Say by which way the results of a request leave."""
        self.ledger.decide(ask, by_import=by_import)
        self.changed.set()

    def wait(self, ask: Ask, ends_at: float, is_abandoned: Callable[[], bool]) -> bool:
        """Wait until nothing more will come for now, or the time is up. Returns False if the client has gone."""
        while (left_s := ends_at - time.monotonic()) > 0 and not is_abandoned():
            if ask.is_settled.wait(min(_LOOK_FOR_CLIENT_S, left_s)):
                break
            # The client is mostly Label Studio. If it can't be reached, LABEL_STUDIO_URL may be wrong.
            if self._outage.lasts_longer_than(_AWAY_PATIENCE_S):
                break
        return not is_abandoned()

    def answer(
        self,
        ask: Ask,
        ends_at: float,
        limit: int = _MAX_TASKS,
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> list[Prediction | None]:
        """The predictions that this request's answer brings: up to `limit` of those that leave by no other way."""
        if not self.ledger.has_to_answer(ask) or not self.door.enter_to_answer(ends_at, is_abandoned):
            return self.ledger.claim(ask, 0)
        return self.ledger.claim(ask, limit, self.door.answer_over, is_final=not self.key.studio_url)

    def leave(self, ask: Ask) -> int:
        """Ask no more. Returns the number of tasks that go on without this request."""
        left, without_room = self.ledger.leave(ask)
        self._tell_left_out(without_room, "too much memory is held already (MAX_HELD_MEGABYTES)")
        self._common_cause.close()
        self.changed.set()
        return left

    # For those who look after it

    def resume(self) -> None:
        """Start what waits, as far as there is room. If Label Studio is away, only when it is time for another try."""
        if not self.is_stopping:
            self._scheduler.resume()

    def give_up(self, reason: str, *states: TicketState, is_begun: bool = True) -> None:
        """Forget the tasks in these states; the next click asks for them."""
        self._tell_left_out(self.ledger.give_up(*states, is_begun=is_begun), reason)
        if self.ledger.is_at_rest:
            self._outage.ended()  # there is no work left that could find out

    def expire(self) -> None:
        """Forget results that nobody asked for in a day, and work that Label Studio was away for so long."""
        if self._outage.lasts_longer_than(_KEPT_S):
            self.give_up(_AWAY, TicketState.PENDING, is_begun=False)
        self.ledger.give_up_older_than(_KEPT_S)

    def stop(self) -> None:
        """Start no more tasks; what runs is finished."""
        self.is_stopping = True
        self.give_up("the backend is stopping", TicketState.PENDING, is_begun=False)
        self.changed.set()

    def has_stopped(self) -> bool:
        """Returns True if it was told to stop, nothing is running, and nobody waits for an answer."""
        return self.is_stopping and self.ledger.is_idle

    def close(self) -> Progress:
        """Return the last progress, and begin to count anew."""
        progress = replace(self.progress(), finished_at=time.time())
        self.ledger.clear_counts()
        self._finished_at.clear()
        self.last_error = None
        return progress

    def progress(self) -> Progress:
        """How far the work is."""
        waiting, running, kept = self.ledger.numbers()
        counts = self.ledger.counts
        now = time.monotonic()
        recent = [at for at in list(self._finished_at) if at > now - _RATE_OVER_S]
        rate = len(recent) / max(1.0, now - recent[0]) if len(recent) > 1 and running else 0.0
        return Progress(
            project=self.key.project,
            model_version=self.key.model_version,
            asked=counts["asked"],
            waiting=waiting,
            running=running,
            predicted=counts["predicted"],
            failed=counts["failed"],
            answered=counts["answered"],
            pushed=counts["pushed"],
            kept=kept,
            rate_per_s=rate,
            left_s=waiting / rate if rate and waiting else None,
            last_error=_AWAY if self._outage.lasts_longer_than(0) else self.last_error,
        )

    # The work itself

    def _queue(self, ticket: Ticket, *, is_first: bool = False) -> None:
        if (task := ticket.task) is not None:  # an empty one is one, too
            turn = _Turn(self, ticket)
            self._scheduler.add(self._project, self._host_of(task), turn, self._parallel, is_first=is_first)

    def _tell_left_out(self, count: int, reason: str) -> None:
        if count:
            metrics.TASKS.labels("not ready").inc(count)
            log.warning("Project %s: %d tasks are left to the next click: %s", self.key.project, count, reason)

    def _run(self, ticket: Ticket, slot: Slot) -> None:
        task = ticket.task
        if task is None:  # a lone request answered it meanwhile
            self.ledger.release(ticket)
            return
        outcome = self._outcome(task, slot)
        if isinstance(outcome, Failure) and outcome.is_passing and not self.is_stopping:
            self._try_again(ticket)
            return
        self._outage.ended()
        if self.ledger.done(ticket, b"" if isinstance(outcome, Failure) else outcome):
            self._finished_at.append(time.monotonic())
            if isinstance(outcome, Failure):
                self._common_cause.failed(outcome)
            else:
                self._common_cause.succeeded()
        if self.ledger.is_at_rest:
            self._common_cause.close()
            self.changed.set()

    def _outcome(self, task: Task, slot: Slot) -> bytes | Failure:
        try:
            outcome = self._attempt(task, slot)
            return outcome if isinstance(outcome, Failure) else pack(outcome)
        except BaseException:  # whatever it is, somebody waits
            log.exception("Task %s is not predicted", task_id_of(task))
            return Failure(self.key.project, task_id_of(task), FailureKind.INTERNAL, "the backend's log says more")

    def _try_again(self, ticket: Ticket) -> None:
        """Label Studio is away: try this task and the others again when it may be back."""
        if self._outage.began():
            log.warning("Project %s: %s", self.key.project, _AWAY)
        if self.ledger.release(ticket):
            self._queue(ticket, is_first=True)
        self._scheduler.hold(self._project, self._outage.paused_until)


class _Turn:
    """A ticket that waits for its turn."""

    __slots__ = ("_job", "_request_id", "_ticket")

    def __init__(self, job: Job, ticket: Ticket) -> None:
        self._job = job
        self._ticket = ticket
        self._request_id = request_ids.current()  # of the click that asked for it first

    def begin(self) -> bool:
        return self._job.ledger.begin(self._ticket)

    def run(self, slot: Slot) -> None:
        with request_ids.working_for(self._request_id):
            self._job._run(self._ticket, slot)

    def drop(self) -> None:
        self._job.ledger.drop(self._ticket)


class Jobs:
    """All jobs of the process, by whose predictions they make."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Job] = {}
        self._doors: dict[tuple[str, str], Door] = {}
        self._finished: deque[Progress] = deque(maxlen=_FINISHED_KEPT)
        self._lock = threading.Lock()
        self._is_stopping = False

    def of(self, key: JobKey, start: Callable[[], Job]) -> Job:
        """The job of this key, made by `start` if there is none."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                self._forget_unused()
                job = self._jobs[key] = start()
                if self._is_stopping:
                    job.stop()
            job.used_at = time.monotonic()
            return job

    def door(self, key: JobKey) -> Door:
        """The way into this key's project, which its versions share."""
        return self._doors.setdefault((key.studio_url, key.project), Door())

    def ask(
        self,
        key: JobKey,
        tasks: Sequence[Task],
        start: Callable[[], Job],
        recall: Recall | None = None,
        learn: Callable[[Job, Sequence[Ticket]], object] | None = None,
    ) -> tuple[Job, Ask]:
        """Join the job of this key. The project's other versions may be superseded by it.

        `recall` gives the prediction of a task that needs no work, or None; `learn` asks Label Studio what it holds of
        what is doubtful. Raises TooManyJobsError.
        """
        tickets = tickets_of(tasks)  # which takes a while, and others wait for the lock
        job = self.of(key, start)
        if learn:
            learn(job, tickets)
        if recall:
            self._recall(job, tasks, tickets, recall)
        self._make_room(job)
        with self._lock:
            for other in self._jobs.values():
                other.is_superseded |= key.replaces(other.key)
            room = _MAX_TASKS - sum(other.ledger.size for other in self._jobs.values())
        ask = job.ask(tickets, room)
        with self._lock:
            is_first, job.is_delivered = not job.is_delivered, True
        if is_first:
            try:
                job.deliver()
            except BaseException:  # no thread can be started
                job.leave(ask)
                job.is_delivered = False
                raise
        return job, ask

    def _recall(self, job: Job, tasks: Sequence[Task], tickets: Sequence[Ticket], recall: Recall) -> None:
        """Give tickets the predictions that need no work, because handing a task to a worker costs more.

        Only for a short time, because the other tasks wait meanwhile and the results take memory. The workers do the
        rest.
        """
        ends_at = time.monotonic() + _RECALL_FOR_S
        for task, ticket in zip(tasks, tickets, strict=True):
            if time.monotonic() > ends_at:
                break
            if not job.ledger.known(ticket) and (prediction := recall(task)):
                ticket.packed = pack(prediction)

    def _make_room(self, job: Job) -> None:
        """Each job at work has a thread. If there are very many, the oldest one whose work is done gives way."""
        others = [other for other in self.all() if other is not job]
        if len(others) >= _MAX_JOBS and (old := next((j for j in others if j.ledger.is_at_rest), None)):
            old.give_up("too many projects at once", TicketState.READY, TicketState.LEASED)
        if len(others) >= 2 * _MAX_JOBS and not job.is_delivered:
            raise TooManyJobsError("too many projects are at work already")

    def _forget_unused(self) -> None:
        now = time.monotonic()
        for key, job in list(self._jobs.items()):
            if not job.is_delivered and job.used_at < now - _UNUSED_S and job.ledger.is_unused(now):
                del self._jobs[key]
                if not any((key.studio_url, key.project) == (k.studio_url, k.project) for k in self._jobs):
                    self._doors.pop((key.studio_url, key.project), None)

    def find(self, key: JobKey) -> Job | None:
        """The job of this key, if there is one."""
        with self._lock:
            return self._jobs.get(key)

    def finish(self, job: Job, *, if_empty: bool = False) -> bool:
        """End a job's delivery. With `if_empty`, only if it has nothing left to do; returns False if it has."""
        if not if_empty:
            job.ledger.give_up(
                TicketState.READY, TicketState.LEASED
            )  # what Label Studio didn't take, the next click asks for
        with self._lock:
            if if_empty and not job.ledger.is_empty:
                return False
            job.is_delivered = False
            self._finished.appendleft(job.close())
            return True

    def all(self) -> list[Job]:
        """The jobs under way."""
        with self._lock:
            return [job for job in self._jobs.values() if job.is_delivered]

    def progress(self) -> list[Progress]:
        """How far each job is: those under way first, then the last ones that finished."""
        return [job.progress() for job in self.all()] + list(self._finished)

    def stop(self) -> None:
        """Start no more tasks, in any job."""
        with self._lock:
            self._is_stopping = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop()
