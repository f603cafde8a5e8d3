"""Imports into Label Studio what no answer brings. Label Studio is asked what it holds, so nothing is stored twice."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

import requests

from yolo_backend import metrics
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure, FailureLog
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError, StudioUnreachedError, explain
from yolo_backend.label_studio.pauses import Pauses
from yolo_backend.label_studio.storing import UnknownOutcomeError, store_predictions
from yolo_backend.label_studio.studio import Studio
from yolo_backend.serving.jobs import Job, JobKey, Jobs
from yolo_backend.serving.tickets import Lease, Ticket, TicketState, Way

log = logging.getLogger(__name__)

_CHUNK = 1000
# After an import, Label Studio recounts the whole project, so there are few imports; but nobody should wait long. While
# a click waits, the door lets imports take half of the time at most.
_IMPORT_AFTER_S, _IMPORT_FOR_A_CLICK_AFTER_S = 20.0, 0.5
# The import after the last image is all that a person waits for then, so it should be small: one goes before it.
_LAST_IMPORT = 16
_PAUSE_S, _PAUSE_FOR_A_CLICK_S = 0.5, 0.1
_EXPIRE_EACH_S = 60.0
_RETRY_AFTER_S = (2.0, 60.0)
_REFUSED_RETRY_AFTER_S = 300.0
# If an answer isn't stored by then, a request for the same tasks doesn't wait for it.
_ADRIFT_AFTER_S = 10.0


class Destination:
    """Where a job's results may be imported to, as it is known now; `why_not` says why they may not."""

    def __init__(self, key: JobKey, studio: Callable[[], Studio | None]) -> None:
        self.why_not: str | None = None
        self._key = key
        self._studio = studio
        self.project = int(key.project) if re.fullmatch("[0-9]{1,18}", key.project) else 0

    def studio(self) -> Studio | None:
        """The Label Studio to import to; None without its token, or if the project has no number."""
        studio = self._studio()
        if studio is None or studio.token is None:
            self.why_not = "predictions are pushed only with LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
        elif studio.url != self._key.studio_url:
            self.why_not = "another Label Studio has introduced itself for this project since"
        elif not self.project:
            self.why_not = "whoever asked didn't say which project of Label Studio it is"
        else:
            self.why_not = None
            return studio
        return None


class Delivery:
    """Brings each result of a job to Label Studio once. It is one thread, which ends with the work."""

    def __init__(
        self,
        job: Job,
        jobs: Jobs,
        destination: Destination,
        is_current: Callable[[str], bool],
        failures: FailureLog,
    ) -> None:
        """`is_current` says whether predictions still fit this labeling config."""
        self._job = job
        self._jobs = jobs
        self._ledger = job.ledger
        self._destination = destination
        self._is_current = is_current
        self._failures = failures
        self._next_try_at = self._import_at = float("-inf")
        self._pauses = Pauses(*_RETRY_AFTER_S)
        self._chunk = _CHUNK
        self._expire_at = float("-inf")
        self._can_import()
        self._thread = threading.Thread(target=self._run, name=f"deliver {job.key.project}", daemon=True)

    def start(self) -> None:
        """Begin to look after the job."""
        self._thread.start()

    def _run(self) -> None:
        while not self._jobs.finish(self._job, if_empty=True):
            is_last = self._job.has_stopped()
            self._job.changed.clear()
            try:
                self.step()
            except Exception:
                log.exception("Project %s: delivering failed", self._job.key.project)
                self._next_try_at = time.monotonic() + _RETRY_AFTER_S[1]
            # If results only wait for the door, we go on waiting. Who stops us limits the time.
            if is_last and (self._job.last_error or not self._ledger.importable(1).count):
                self._jobs.finish(self._job)
                return
            is_waited_for = self._ledger.importable(1).is_waited_for
            self._job.changed.wait(min(_PAUSE_S, _PAUSE_FOR_A_CLICK_S) if is_waited_for else _PAUSE_S)

    def step(self) -> None:
        """Deliver what is due."""
        now = time.monotonic()
        for lease in self._leases(Way.ANSWER):
            if now > lease.since + _ADRIFT_AFTER_S and not lease.is_adrift:
                self._ledger.set_adrift(lease)
        self._job.resume()
        self._ledger.compress()
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRE_EACH_S
            self._job.expire()
        studio = self._can_import()
        if studio is None:
            self._assume_stored(now)
            return
        if now < self._next_try_at and not self._job.is_stopping:
            return
        try:
            self._void_other_labels(studio)
            self._ask_about_leases(studio, now)
            if now >= self._import_at or self._job.is_stopping:
                self._import(studio, now)
                self._job.last_error = None
        except StudioRefusedError as error:
            self._wait(str(error), 0.0)
            self._import_at = time.monotonic() + _REFUSED_RETRY_AFTER_S
            self._ledger.decide_all_by_answer()
            self._assume_stored(now)
        except (StudioError, requests.Timeout) as error:
            self._wait(explain(error), self._pauses.next())

    def _can_import(self) -> Studio | None:
        studio = self._destination.studio()
        if studio is None:
            self._job.last_error = self._destination.why_not
        return studio

    def _void_other_labels(self, studio: Studio) -> None:
        """If another version was asked for, ask Label Studio for the labels: anybody may have asked for it."""
        if self._job.is_superseded:
            self._check_labels(studio)
            self._job.is_superseded = False

    def _check_labels(self, studio: Studio) -> bool:
        """Returns True if these are still the project's labels. If not, all that is left is dropped."""
        if self._is_current(studio.label_config(self._destination.project)):
            return True
        self._job.give_up("the project's labels changed", TicketState.PENDING, TicketState.READY)
        for lease in self._leases(Way.IMPORT):
            if not lease.is_sent:
                self._ledger.end(lease, is_unsent=True)
        self._job.give_up("the project's labels changed", TicketState.READY)
        return False

    def _leases(self, way: Way) -> list[Lease]:
        return [lease for lease in self._ledger.leases() if lease.way is way]

    def _ask_about_leases(self, studio: Studio, now: float) -> None:
        """Ask Label Studio which of the results on lease it has stored."""
        due = [
            lease
            for lease in self._ledger.leases()
            if not lease.is_sending and now >= min(lease.look_at, lease.ends_at)
        ]
        task_ids = [ticket.task_id for lease in due for ticket in list(lease.tickets) if ticket.task_id is not None]
        if task_ids:
            held = studio.tasks_holding(self._destination.project, self._job.key.model_version, task_ids)
            self._ledger.learn(task_ids, held, now)
        for lease in due:
            # Soon at first: a person who deletes these predictions a little later doesn't want them back.
            lease.look_at = now + lease.pauses.next()
            if now > lease.ends_at:
                self._end(lease)

    def _end(self, lease: Lease) -> None:
        whole = lease.count == len(lease.tickets)
        count = self._ledger.end(lease)
        if count and lease.way is Way.IMPORT and whole:  # it may have been too much at once
            self._chunk = max(1, min(self._chunk, count) // 2)
        elif count and lease.way is Way.ANSWER and not lease.is_lone:
            log.warning(
                "Project %s: Label Studio hasn't stored %d predictions of the backend's answer",
                self._destination.project,
                count,
            )

    def _assume_stored(self, now: float) -> None:
        """Label Studio can't be asked, so what was answered a while ago counts as stored.

        We don't know whether an import was stored. If Label Studio asks for the task again, it was not.
        """
        for lease in self._ledger.leases():
            if not lease.is_adrift:
                self._ledger.set_adrift(lease)
            if now > lease.ends_at and lease.way is Way.ANSWER:
                task_ids = [ticket.task_id for ticket in list(lease.tickets) if ticket.task_id is not None]
                self._ledger.learn(task_ids, set(task_ids), now)
            elif now > lease.ends_at:
                self._ledger.end(lease)

    def _import(self, studio: Studio, now: float) -> None:
        while True:
            found = self._ledger.importable(self._chunk)
            is_at_rest = self._ledger.is_at_rest
            due_after_s = _IMPORT_FOR_A_CLICK_AFTER_S if found.is_waited_for else _IMPORT_AFTER_S
            is_last_but_one = found.is_waited_for and _LAST_IMPORT <= self._ledger.left <= found.count // 2
            is_due = found.is_full or now >= found.oldest_at + due_after_s or is_at_rest or is_last_but_one
            if not found.count or not is_due:
                return
            if not self._job.door.enter_to_import(at_once=is_at_rest or self._job.is_stopping):
                return
            began_at = time.monotonic()
            self._import_lease(studio, self._ledger.lend_for_import(self._chunk, self._job.door.import_over))
            self._job.door.rest(time.monotonic() - began_at)
            self._pauses.reset()
            self._chunk = min(2 * self._chunk, _CHUNK)

    def _import_lease(self, studio: Studio, lease: Lease) -> None:
        by_task = {ticket.task_id: ticket for ticket in list(lease.tickets) if ticket.task_id is not None}
        predictions = [{"task": task_id, **ticket.prediction} for task_id, ticket in by_task.items()]

        def is_wanted() -> bool:
            if self._check_labels(studio):
                self._ledger.send(lease)
                return True
            return False

        began = time.monotonic()
        try:
            for part in store_predictions(studio, self._destination.project, predictions, is_wanted):
                self._ledger.learn(part.held, part.held, began)
                self._ledger.tell_imported([by_task[task_id] for task_id in part.created])
                self._reject([by_task[task_id] for task_id in part.rejected])
                if part.created:
                    log.info(
                        "Project %s: %d predictions are pushed to Label Studio",
                        self._destination.project,
                        len(part.created),
                    )
            self._ledger.sent(lease)
            self._ledger.end(lease, is_unsent=True)  # these weren't wanted any more
        except UnknownOutcomeError as error:
            self._ledger.sent(lease)
            metrics.DELIVERIES.labels("import", "unknown").inc(len(error.task_ids))
            self._ledger.set_adrift(lease)  # on lease, with the door closed, until the outcome is known
            raise
        except Exception as error:
            self._ledger.sent(lease)
            is_unsent = isinstance(error, StudioRefusedError | StudioUnreachedError) or not lease.is_sent
            self._ledger.end(lease, is_unsent=is_unsent)
            raise

    def _reject(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            failure = Failure(
                self._job.key.project,
                ticket.task_id,
                FailureKind.REJECTED,
                "Label Studio doesn't take its prediction: the task was deleted, or its project's labels changed",
            )
            self._failures.add(failure)
            metrics.DELIVERIES.labels("import", "rejected").inc()
            log.warning("%s", failure)
            self._ledger.drop(ticket)

    def _wait(self, error: str, for_s: float) -> None:
        if error != self._job.last_error:
            log.warning("Project %s: results wait to be delivered: %s", self._destination.project, error)
        self._job.last_error = error
        self._next_try_at = time.monotonic() + for_s
