"""Work under way: each task of a project once, whoever asks for it, and its prediction delivered once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from yolo_backend import metrics
from yolo_backend.failures import CommonCause, Failure, FailureLog
from yolo_backend.protocol import Prediction, Task, task_id_of
from yolo_backend.tickets import OPEN, Ask, State, Ticket, pack, squeeze, tickets_of

log = logging.getLogger(__name__)

Submit = Callable[[Callable[[], None]], object]
Recall = Callable[[Task], Prediction | None]

_MAX_TASKS = 100_000
_MAX_JOBS = 100
_FINISHED_KEPT = 10
_KEPT_S = 24 * 3600.0
# Label Studio stores an answer task by task: who asks again in that time, asked before it was done.
_STORING_S = 5.0
_STORING_EACH_S = 0.02
_RATE_OVER_S = 60.0
_LOOK_FOR_CLIENT_S = 0.5
_SQUEEZE_AFTER_S = 3.0
_RECALL_FOR_S = 0.5
_AWAY_PAUSE_S = (2.0, 60.0)
_AWAY_PATIENCE_S = 4.0
_AWAY = "Label Studio doesn't answer at LABEL_STUDIO_URL: the work goes on when it does"


class TooManyJobsError(Exception):
    """There is no room for another project's work now."""


@dataclass(frozen=True)
class JobKey:
    """Whose predictions: where Label Studio is, its project, and the version of what comes out."""

    studio_url: str
    project: str
    model_version: str

    def replaces(self, other: JobKey) -> bool:
        """Is this another version for the same project?"""
        same_project = (self.studio_url, self.project) == (other.studio_url, other.project)
        return bool(self.project) and same_project and self.model_version != other.model_version


@dataclass(frozen=True)
class Progress:
    """How far the work on a project is, in numbers of tasks.

    `left_s` is an estimate for what waits; `finished_at` is the time of day when all of it was done and delivered.
    """

    project: str
    model_version: str
    asked: int
    waiting: int
    running: int
    predicted: int
    failed: int
    answered: int
    pushed: int
    kept: int
    rate_per_s: float
    left_s: float | None
    trouble: str | None
    finished_at: float | None = None


class _Absence:
    """Since when Label Studio has been away, and when to try again. For any thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._pause_s = 0.0
        self._paused_until = float("-inf")

    def began(self) -> bool:
        """It is away, once more; true where that is news."""
        now = time.monotonic()
        is_news = now > self._paused_until + _AWAY_PAUSE_S[1]  # not again and again, where other images can be had
        self._since = self._since or now
        if now >= self._paused_until:
            self._pause_s = min(max(_AWAY_PAUSE_S[0], 2 * self._pause_s), _AWAY_PAUSE_S[1])
            self._paused_until = now + self._pause_s
        return is_news

    def ended(self) -> None:
        """Images can be had."""
        self._since, self._pause_s = None, 0.0

    def is_paused(self) -> bool:
        """Is it too early for another try?"""
        return time.monotonic() < self._paused_until

    def lasts_longer_than(self, seconds: float) -> bool:
        """Has it been away for so long?"""
        since = self._since
        return since is not None and time.monotonic() - since > seconds


class Job:
    """The tasks of a project at one version. Safe to share between threads.

    `predict` turns a task into its prediction or a Failure and never raises; `submit` hands work to the threads that
    all jobs share, which get `parallel` tasks at a time, so that jobs side by side take turns.
    """

    def __init__(
        self,
        key: JobKey,
        predict: Callable[[Task], Prediction | Failure],
        submit: Submit,
        *,
        parallel: int,
        failures: FailureLog,
    ) -> None:
        self.key = key
        self.trouble: str | None = None
        self.is_doubted = False  # another version was asked for
        self.is_stopping = False
        self._predict = predict
        self._submit = submit
        self._parallel = parallel
        self._tickets: dict[int, Ticket] = {}
        self._pushed: dict[int, tuple[int, float]] = {}  # what tasks were, and until when they aren't taken on again
        self._waiting: deque[Ticket] = deque()
        self._nameless = 0
        self._running = 0
        self._asks = 0
        self._counts: Counter[str] = Counter()
        self._finished_at: deque[float] = deque(maxlen=1000)
        self._common_cause = CommonCause(key.project, failures)
        self._absence = _Absence()
        self._lock = threading.RLock()

    # For those who ask

    def ask(self, new: Sequence[Ticket], room: int = _MAX_TASKS) -> Ask:
        """Join the work on tasks by a new ticket for each; `room` of those that nobody asked for yet are taken on.

        A ticket may bring its prediction: then there is nothing to be done for it.
        """
        ask = Ask()
        with self._lock:
            self._asks += 1
            stored_by_now = self._stored_by_now()
            mine: set[Ticket] = set()
            just_pushed = 0
            for fresh in new:
                ticket = self._known(fresh)
                if ticket is None and self._was_just_pushed(fresh):
                    just_pushed += 1
                elif ticket is None or ticket in mine:
                    ticket = self._take_on(fresh, mine) if room > 0 and not self.is_stopping else None
                    room -= 1
                ask.tickets.append(ticket)
                if ticket:
                    self._take_back(ticket, stored_by_now)
                    mine.add(ticket)
                    ticket.asks.append(ask)
            ask.unsettled = sum(ticket.state in OPEN for ticket in mine)
            if not ask.unsettled:
                ask.is_settled.set()
        self._tell_left_out(
            ask.tickets.count(None) - just_pushed,
            "the backend is stopping" if self.is_stopping else "too many wait already",
        )
        self.resume()
        return ask

    def wait(self, ask: Ask, ends_at: float, is_abandoned: Callable[[], bool]) -> bool:
        """Wait until nothing more is to come for now, or the time is up; false when whoever asked has gone."""
        while (left_s := ends_at - time.monotonic()) > 0 and not is_abandoned():
            if ask.is_settled.wait(min(_LOOK_FOR_CLIENT_S, left_s)):
                break
            # Whoever asks is Label Studio, as a rule: if it can't be reached, LABEL_STUDIO_URL may be wrong.
            if self._absence.lasts_longer_than(_AWAY_PATIENCE_S):
                break
        return not is_abandoned()

    def claim(self, ask: Ask) -> list[Prediction | None]:
        """The predictions that are this request's to answer: what is ready and nobody else's."""
        with self._lock:
            mine = [ticket if ticket and ticket.state is State.READY else None for ticket in ask.tickets]
            for ticket in filter(None, mine):
                self._set(ticket, State.ANSWERED if ticket.task_id is not None else State.GONE)
                self._counts["answered"] += 1
        return [ticket.prediction if ticket else None for ticket in mine]

    def leave(self, ask: Ask) -> int:
        """Ask no more; the number of tasks that go on without this request."""
        with self._lock:
            self._asks -= 1
            left = 0
            for ticket in {ticket for ticket in ask.tickets if ticket}:
                ticket.asks.remove(ask)
                if ticket.state in OPEN:
                    if ticket.task_id is None:
                        self._set(ticket, State.GONE)
                    else:
                        left += 1
            self._drop_gone()
        self._common_cause.close()
        return left

    def ticket(self, task: Task) -> Ticket | None:
        """What this job has of a task."""
        (fresh,) = tickets_of([task])
        with self._lock:
            return self._known(fresh)

    def knows(self, fresh: Ticket) -> bool:
        """Has this job a ticket for the same task already?"""
        with self._lock:
            return self._known(fresh) is not None

    def claim_alone(self, task: Task, prediction: Prediction, before: Ticket | None) -> bool:
        """Answer a lone request with this prediction; false where the task's was delivered in another way.

        `before` is the ticket that the task had when the request came: it may have gone its way since.
        """
        with self._lock:
            ticket = self.ticket(task) or before
            if ticket is None:
                return True
            if ticket.state is State.GONE:
                return not ticket.packed
            self._take_back(ticket, self._stored_by_now())
            if ticket.state not in {*OPEN, State.READY}:
                return False
            self._counts["predicted"] += ticket.state in OPEN
            ticket.packed = pack(prediction)
            self._set(ticket, State.ANSWERED)
            self._counts["answered"] += 1
            return True

    # For those who deliver

    def tickets(self, *states: State) -> list[Ticket]:
        """The tickets in these states, in the order in which they were asked for."""
        with self._lock:
            return [ticket for ticket in self._tickets.values() if ticket.state in states]

    def is_at_rest(self) -> bool:
        """Is nothing waiting and nothing running?"""
        with self._lock:
            return not self._running and not any(t.state is State.WAITING for t in self._waiting)

    def deliverable(self) -> list[Ticket]:
        """What is ready and no request waits for."""
        with self._lock:
            return [ticket for ticket in self.tickets(State.READY) if not ticket.asks]

    def squeeze(self) -> None:
        """Let what isn't answered soon take less memory."""
        old = time.monotonic() - _SQUEEZE_AFTER_S
        for ticket in self.tickets(State.READY):
            packed = ticket.packed
            if ticket.ready_at > old or (squeezed := squeeze(packed)) is packed:
                continue
            with self._lock:  # only now, for squeezing takes a while
                if ticket.packed is packed:
                    ticket.packed = squeezed

    def take_for_push(self, limit: int) -> list[Ticket]:
        """Some of what is deliverable; to be told of by `pushed` or `put_back`."""
        with self._lock:
            # What was tried before goes last, so that one that can't be pushed doesn't keep the others.
            tickets = sorted(self.deliverable(), key=lambda ticket: ticket.pushes)[:limit]
            for ticket in tickets:
                ticket.pushes += 1
                self._set(ticket, State.PUSHING)
            return tickets

    def pushed(self, tickets: Sequence[Ticket], *, by_us: bool = True) -> None:
        """Label Studio holds these predictions."""
        with self._lock:
            self._counts["pushed"] += len(tickets) if by_us else 0
            for ticket in tickets:
                self._set(ticket, State.GONE)
            if by_us:
                # Label Studio picks the tasks of a click first, and sends them seconds later.
                until = time.monotonic() + _STORING_S + _STORING_EACH_S * len(tickets)
                old = [task_id for task_id, (_, ends_at) in self._pushed.items() if ends_at < time.monotonic()]
                for task_id in old:
                    del self._pushed[task_id]
                self._pushed.update(
                    {ticket.task_id: (ticket.fingerprint, until) for ticket in tickets if ticket.task_id is not None}
                )

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """Label Studio doesn't hold these predictions: they are to be delivered still."""
        with self._lock:
            for ticket in tickets:
                if ticket.state in {State.PUSHING, State.ANSWERED}:
                    self._set(ticket, State.READY)

    def give_up(self, reason: str, *states: State) -> None:
        """Forget the tasks in these states; the next click asks for them."""
        with self._lock:
            tickets = self.tickets(*states)
            for ticket in tickets:
                self._set(ticket, State.GONE)
            self._drop_gone()
        self._tell_left_out(len(tickets), reason)

    def resume(self) -> None:
        """Start what waits, as far as there is room, and where Label Studio is away, if it is time for another try."""
        with self._lock:
            if self.is_stopping or self._absence.is_paused():
                return
            while self._waiting and self._running < self._parallel:
                ticket = self._waiting.popleft()
                if ticket.state is not State.WAITING:
                    continue
                self._set(ticket, State.RUNNING)
                self._running += 1
                try:
                    self._submit(lambda ticket=ticket: self._run(ticket))  # type: ignore[misc]
                except RuntimeError as error:
                    if "shutdown" in str(error):  # the process is ending; else it is queued all the same
                        self._running -= 1
                        self._set(ticket, State.GONE)

    def expire(self) -> None:
        """Forget results that nobody asked for in a day, and work that Label Studio was away for so long."""
        old = time.monotonic() - _KEPT_S
        if self._absence.lasts_longer_than(_KEPT_S):
            self.give_up(_AWAY, State.WAITING)
        with self._lock:
            for ticket in self.tickets(State.READY, State.ANSWERED, State.PUSHING):
                if ticket.ready_at < old and not ticket.asks:
                    self._set(ticket, State.GONE)

    def stop(self) -> None:
        """Start no more tasks; what runs is finished."""
        self.is_stopping = True
        self.give_up("the backend is stopping", State.WAITING)

    def has_stopped(self) -> bool:
        """Was it told to stop, and is nothing running and nobody waiting for an answer?"""
        with self._lock:
            return self.is_stopping and not self._running and not self._asks

    @property
    def size(self) -> int:
        """The number of tasks that it knows, those without an id among them."""
        return len(self._tickets) + self._nameless

    def is_empty(self) -> bool:
        """Is there nothing left to do, to answer or to deliver?"""
        with self._lock:
            return not self._tickets and not self._asks and not self._running

    def progress(self) -> Progress:
        """How far the work is."""
        with self._lock:
            states = Counter(ticket.state for ticket in self._tickets.values())
            now = time.monotonic()
            recent = [at for at in self._finished_at if at > now - _RATE_OVER_S]
            rate = len(recent) / max(1.0, now - recent[0]) if len(recent) > 1 and self._running else 0.0
            return Progress(
                project=self.key.project,
                model_version=self.key.model_version,
                asked=self._counts["asked"],
                waiting=states[State.WAITING],
                running=states[State.RUNNING],
                predicted=self._counts["predicted"],
                failed=self._counts["failed"],
                answered=self._counts["answered"],
                pushed=self._counts["pushed"],
                kept=states[State.READY] + states[State.PUSHING],
                rate_per_s=rate,
                left_s=states[State.WAITING] / rate if rate and states[State.WAITING] else None,
                trouble=_AWAY if self._absence.lasts_longer_than(0) else self.trouble,
            )

    # The work itself

    def _take_on(self, ticket: Ticket, mine: set[Ticket]) -> Ticket:
        if ticket.task_id is not None and self._tickets.get(ticket.task_id) in mine:
            ticket.task_id = None  # the second of one id in a request: worked on as well, but never delivered later
        if ticket.task_id is not None:
            if ticket.task_id in self._tickets:  # its data changed since
                self._set(self._tickets[ticket.task_id], State.GONE)
            self._tickets[ticket.task_id] = ticket
        else:
            self._nameless += 1
        ticket.since = time.monotonic()
        self._counts["asked"] += 1
        if ticket.packed:
            self._succeeded(ticket, ticket.packed)
        else:
            self._waiting.append(ticket)
        return ticket

    def _drop_gone(self) -> None:
        self._waiting = deque(ticket for ticket in self._waiting if ticket.state is State.WAITING)

    def _stored_by_now(self) -> float:
        """Label Studio has stored what it was answered before this time."""
        answered = sum(ticket.state is State.ANSWERED for ticket in self._tickets.values())
        return time.monotonic() - _STORING_S - _STORING_EACH_S * answered

    def _take_back(self, ticket: Ticket, stored_by_now: float) -> None:
        # Label Studio asks only for what it doesn't hold: this answer was lost.
        if ticket.state is State.ANSWERED and ticket.since < stored_by_now:
            self._set(ticket, State.READY)

    def _was_just_pushed(self, fresh: Ticket) -> bool:
        """Did whoever asks pick this task before Label Studio held its prediction?"""
        fingerprint, ends_at = self._pushed.get(fresh.task_id or 0, (0, 0.0))
        return fingerprint == fresh.fingerprint and time.monotonic() < ends_at

    def _known(self, fresh: Ticket) -> Ticket | None:
        ticket = self._tickets.get(fresh.task_id) if fresh.task_id is not None else None
        return ticket if ticket and ticket.fingerprint == fresh.fingerprint else None

    def _tell_left_out(self, count: int, reason: str) -> None:
        if count:
            metrics.TASKS.labels("not ready").inc(count)
            log.warning("Project %s: %d tasks are left to the next click: %s", self.key.project, count, reason)

    def _run(self, ticket: Ticket) -> None:
        task = ticket.task
        if task is not None:  # else a lone request answered it meanwhile
            self._finish(ticket, self._outcome(task))
        with self._lock:
            self._running -= 1
            is_last = self.is_at_rest()
        if is_last:
            self._common_cause.close()
        self.resume()

    def _outcome(self, task: Task) -> bytes | Failure:
        try:
            outcome = self._predict(task)
            return outcome if isinstance(outcome, Failure) else pack(outcome)
        except BaseException:  # whatever it is, somebody waits
            log.exception("Task %s is not predicted", task_id_of(task))
            return Failure(self.key.project, task_id_of(task), "internal", "the backend's log says more")

    def _finish(self, ticket: Ticket, outcome: bytes | Failure) -> None:
        if isinstance(outcome, Failure) and outcome.is_passing and self._try_again(ticket):
            return
        with self._lock:
            self._absence.ended()
            if ticket.state is not State.RUNNING:  # answered by a lone request, or its data changed
                return
            self._finished_at.append(time.monotonic())
            if isinstance(outcome, Failure):
                self._common_cause.failed(outcome)
                self._counts["failed"] += 1
                self._set(ticket, State.GONE)
            else:
                self._succeeded(ticket, outcome)

    def _succeeded(self, ticket: Ticket, packed: bytes) -> None:
        self._common_cause.succeeded()
        self._counts["predicted"] += 1
        ticket.packed = packed
        self._set(ticket, State.READY)

    def _try_again(self, ticket: Ticket) -> bool:
        """Label Studio is away: have this task again, and the others, when it may be back."""
        with self._lock:
            if self.is_stopping:
                return False
            if ticket.state is State.RUNNING:
                self._set(ticket, State.WAITING)
                self._waiting.appendleft(ticket)
            if self._absence.began():
                log.warning("Project %s: %s", self.key.project, _AWAY)
            return True

    def _set(self, ticket: Ticket, state: State) -> None:
        was_open = ticket.state in OPEN
        if ticket.state is State.ANSWERED and state is State.READY:
            self._counts["answered"] -= 1
        ticket.state = state
        ticket.since = time.monotonic()
        if was_open and state is not State.GONE:
            ticket.ready_at = ticket.since
        if was_open and state not in OPEN and ticket.task_id is None:
            self._nameless -= 1
        if state not in OPEN:
            ticket.task = None
        if state is State.GONE and ticket.task_id is not None and self._tickets.get(ticket.task_id) is ticket:
            del self._tickets[ticket.task_id]
        if was_open and state not in OPEN:
            for ask in ticket.asks:
                ask.unsettled -= 1
                if not ask.unsettled:
                    ask.is_settled.set()


class Jobs:
    """All jobs of the process, by whose predictions they make."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Job] = {}
        self._finished: deque[Progress] = deque(maxlen=_FINISHED_KEPT)
        self._lock = threading.Lock()
        self._is_stopping = False

    def ask(
        self, key: JobKey, tasks: Sequence[Task], start: Callable[[], Job], recall: Recall | None = None
    ) -> tuple[Job, Ask]:
        """Join the job of this key, made by `start` if there is none; it casts doubt on the project's other versions.

        `recall` gives the prediction of a task that needs no work, or None. Raises TooManyJobsError.
        """
        tickets = tickets_of(tasks)  # which takes a while, and others wait for the lock
        if recall:
            self._recall(key, tasks, tickets, recall)
        with self._lock:
            for other in self._jobs.values():
                other.is_doubted |= key.replaces(other.key)
            job = self._jobs.get(key)
            if job is None:
                self._make_room()
                if len(self._jobs) >= 2 * _MAX_JOBS:
                    raise TooManyJobsError("too many projects are at work already")
                job = self._jobs[key] = start()
                if self._is_stopping:
                    job.stop()
            return job, job.ask(tickets, _MAX_TASKS - sum(other.size for other in self._jobs.values()))

    def _recall(self, key: JobKey, tasks: Sequence[Task], tickets: Sequence[Ticket], recall: Recall) -> None:
        """Give tickets the predictions that need no work, for to hand their tasks to workers takes longer than that.

        Only for so long, for the other tasks wait meanwhile, and what is kept takes memory. The workers do the rest.
        """
        job = self.find(key)
        ends_at = time.monotonic() + _RECALL_FOR_S
        for task, ticket in zip(tasks, tickets, strict=True):
            if time.monotonic() > ends_at:
                break
            if (job is None or not job.knows(ticket)) and (prediction := recall(task)):
                ticket.packed = pack(prediction)

    def _make_room(self) -> None:
        """Each job has a thread: of very many, the oldest that only waits to be asked for or settled gives way."""
        if len(self._jobs) >= _MAX_JOBS and (old := next((j for j in self._jobs.values() if j.is_at_rest()), None)):
            old.give_up("too many projects at once", State.READY, State.ANSWERED)

    def find(self, key: JobKey) -> Job | None:
        """The job of this key, if it is under way."""
        with self._lock:
            return self._jobs.get(key)

    def remove(self, job: Job, *, if_empty: bool = False) -> bool:
        """Forget a job; with `if_empty`, only one that has nothing left to do."""
        with self._lock:
            if if_empty and not job.is_empty():
                return False
            del self._jobs[job.key]
            self._finished.appendleft(replace(job.progress(), finished_at=time.time()))
            return True

    def all(self) -> list[Job]:
        """The jobs under way."""
        with self._lock:
            return list(self._jobs.values())

    def progress(self) -> list[Progress]:
        """How far each job is, those under way first, and then the last ones that finished."""
        with self._lock:
            return [job.progress() for job in self._jobs.values()] + list(self._finished)

    def stop(self) -> None:
        """Start no more tasks, in any job."""
        with self._lock:
            self._is_stopping = True
            for job in self._jobs.values():
                job.stop()
