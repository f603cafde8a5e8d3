"""What no answer took is pushed to Label Studio, which is asked first what it holds: nothing is stored twice."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence

import requests

from yolo_backend.failures import Failure, FailureLog
from yolo_backend.jobs import Job, Jobs
from yolo_backend.storing import UnknownOutcomeError, explain, store_predictions
from yolo_backend.studio import Studio, StudioError, StudioRefusedError
from yolo_backend.tickets import State, Ticket

log = logging.getLogger(__name__)

_CHUNK = 1000
# A chunk makes Label Studio count the whole project anew, so few are pushed; but nobody should wait long.
_PUSH_AFTER_S = 20.0
_PAUSE_S = 1.0
_RETRY_AFTER_S = (2.0, 60.0)
_REFUSED_RETRY_AFTER_S = 300.0
# How long Label Studio may take to store an answer, before what it doesn't hold counts as never received.
_SURELY_STORED_S = 60.0
_SURELY_STORED_EACH_S = 0.05


class Delivery:
    """Sees to it that each result of a job reaches Label Studio once; one thread, which ends with the job."""

    def __init__(
        self,
        job: Job,
        jobs: Jobs,
        studio: Callable[[], Studio | None],
        is_current: Callable[[str], bool],
        failures: FailureLog,
    ) -> None:
        """`studio` is where to deliver to, as it is known now; without its token, or where the project has no number,
        results wait for the next click. `is_current` says whether a labeling config is still the predictions' own.
        """
        self._job = job
        self._jobs = jobs
        self._is_current = is_current
        self._failures = failures
        self._studio_now = studio
        self._studio = Studio("", None)
        self._project = int(job.key.project) if re.fullmatch("[0-9]{1,18}", job.key.project) else 0
        self._can_push()
        self._next_try_at = float("-inf")
        self._retry_after_s = _RETRY_AFTER_S[0]
        self._chunk = _CHUNK
        self._looked_at = float("-inf")
        self._look_after_s = _PAUSE_S
        self._thread = threading.Thread(target=self._run, name=f"deliver {job.key.project}", daemon=True)

    def start(self) -> None:
        """Begin to look after the job."""
        self._thread.start()

    def _run(self) -> None:
        while not self._jobs.remove(self._job, if_empty=True):
            is_last = self._job.has_stopped()
            try:
                self.step()
            except Exception:
                log.exception("Project %s: delivering failed", self._job.key.project)
                self._next_try_at = time.monotonic() + _RETRY_AFTER_S[1]
            if is_last:
                self._jobs.remove(self._job)  # what Label Studio didn't take, the next click asks for
                return
            time.sleep(_PAUSE_S)

    def step(self) -> None:
        """Deliver what is due."""
        now = time.monotonic()
        self._job.resume()
        self._job.expire()
        self._job.squeeze()
        if not self._can_push():
            self._trust(now)
            return
        if now < self._next_try_at and not self._job.is_stopping:
            return
        try:
            self._void_other_labels()
            self._settle(now)
            self._push(now)
            self._job.trouble = None
        except StudioRefusedError as error:
            self._wait(str(error), _REFUSED_RETRY_AFTER_S)
            self._trust(now)
        except (StudioError, requests.Timeout) as error:
            self._wait(explain(error), self._retry_after_s)
            self._retry_after_s = min(2 * self._retry_after_s, _RETRY_AFTER_S[1])

    def _can_push(self) -> bool:
        studio = self._studio_now()
        if studio is None or studio.token is None:
            self._job.trouble = "predictions are pushed only with LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
        elif studio.url != self._job.key.studio_url:
            self._job.trouble = "another Label Studio has introduced itself for this project since"
        elif not self._project:
            self._job.trouble = "whoever asked didn't say which project of Label Studio it is"
        else:
            self._studio = studio
            return True
        return False

    def _void_other_labels(self) -> None:
        """Where another version was asked for: who asks may be anybody, so Label Studio says which labels it has."""
        if self._job.is_doubted:
            self._check_labels()
            self._job.is_doubted = False

    def _check_labels(self) -> bool:
        """Are these still the project's labels? If not, what is left is void."""
        if self._is_current(self._studio.label_config(self._project)):
            return True
        self._job.give_up("the project's labels changed", State.WAITING, State.READY, State.PUSHING)
        return False

    def _settle(self, now: float) -> None:
        """See what Label Studio has stored of that which it was given."""
        # Of an import that ended without an answer; the wait since then was long enough to store it.
        unsure = [] if self._job.is_stopping else self._job.tickets(State.PUSHING)
        if unsure:
            held = self._held(unsure)
            self._job.pushed([ticket for ticket in unsure if ticket.task_id in held])
            self._job.put_back(unsure)
            if not held:  # it may be too much at once
                self._chunk = max(1, min(self._chunk, len(unsure)) // 2)
        answered = self._job.tickets(State.ANSWERED)
        if not answered:
            return
        if max(ticket.since for ticket in answered) > self._looked_at:
            self._look_after_s = _PAUSE_S  # soon, for whoever deletes its predictions then doesn't want them back
        elif now < self._looked_at + self._look_after_s:
            return
        self._looked_at = now
        self._look_after_s = min(2 * self._look_after_s, _RETRY_AFTER_S[1])
        held = self._held(answered)
        self._job.pushed([ticket for ticket in answered if ticket.task_id in held], by_us=False)
        late = [ticket for ticket in answered if ticket.task_id not in held and self._is_late(ticket, now)]
        if late:
            log.warning(
                "Project %s: Label Studio hasn't stored %d predictions that it was answered",
                self._project,
                len(late),
            )
            self._job.put_back(late)

    def _trust(self, now: float) -> None:
        """Label Studio can't be asked, so what it was answered a while ago counts as stored.

        Of what was being pushed, nobody knows: who asks for it again, doesn't hold it.
        """
        late = [t for t in self._job.tickets(State.ANSWERED, State.PUSHING) if self._is_late(t, now)]
        self._job.pushed([ticket for ticket in late if ticket.state is State.ANSWERED], by_us=False)
        self._job.put_back(late)

    def _is_late(self, ticket: Ticket, now: float) -> bool:
        return now - ticket.since > _SURELY_STORED_S + _SURELY_STORED_EACH_S * self._job.size

    def _push(self, now: float) -> None:
        while ready := self._job.deliverable():
            oldest_s = now - min(ticket.ready_at for ticket in ready)
            if len(ready) < self._chunk and oldest_s < _PUSH_AFTER_S and not self._job.is_at_rest():
                return
            tickets = self._job.take_for_push(self._chunk)
            try:
                self._push_chunk(tickets)
            except UnknownOutcomeError:
                raise  # they stay as they are, until it is known
            except Exception:
                self._job.put_back(tickets)
                raise
            self._retry_after_s = _RETRY_AFTER_S[0]
            self._chunk = min(2 * self._chunk, _CHUNK)

    def _push_chunk(self, tickets: Sequence[Ticket]) -> None:
        by_task = {ticket.task_id: ticket for ticket in tickets}
        predictions = [{"task": ticket.task_id, **ticket.prediction} for ticket in tickets]
        try:
            for part in store_predictions(self._studio, self._project, predictions, self._check_labels):
                self._job.pushed([by_task[task_id] for task_id in part.held], by_us=False)
                self._job.pushed([by_task[task_id] for task_id in part.created])
                self._reject([by_task[task_id] for task_id in part.rejected])
                if part.created:
                    log.info("Project %s: %d predictions are pushed to Label Studio", self._project, len(part.created))
        except UnknownOutcomeError:
            self._retry_after_s = _SURELY_STORED_S
            raise

    def _reject(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            failure = Failure(
                self._job.key.project,
                ticket.task_id,
                "rejected",
                "Label Studio doesn't take its prediction: the task was deleted, or its project's labels changed",
            )
            self._failures.add(failure)
            log.warning("%s", failure)
        self._job.pushed(tickets, by_us=False)

    def _held(self, tickets: Sequence[Ticket]) -> set[int]:
        task_ids = [ticket.task_id for ticket in tickets if ticket.task_id is not None]
        return self._studio.tasks_holding(self._project, self._job.key.model_version, task_ids)

    def _wait(self, trouble: str, for_s: float) -> None:
        if trouble != self._job.trouble:
            log.warning("Project %s: results wait to be delivered: %s", self._project, trouble)
        self._job.trouble = trouble
        self._next_try_at = time.monotonic() + for_s
