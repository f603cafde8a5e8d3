"""The lock that has one training at a time in a MODEL_DIR; it is free as soon as its holder is gone, killed or not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from yolo_backend.errors import UserError
from yolo_backend.files import write_json
from yolo_backend.training.records import Run

_LOOKED_AT_FOR_S = 1.0  # whoever asks who holds it has it for a moment


class TrainingBusyError(UserError):
    """Another training holds the lock; the message says which."""


@dataclass(frozen=True)
class Holder:
    """Who trains: a project's key, its run once it has one, and the process; `since` is a time of day."""

    project: str
    run: str = ""
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)

    def __str__(self) -> str:
        run = f"run {self.run} of " if self.run else ""
        since = datetime.fromtimestamp(self.since, UTC).isoformat(timespec="seconds")
        return f"{run}project {self.project.partition('-')[0]}, process {self.pid}, since {since}"

    def may_be_at(self, run: Run) -> bool:
        """Returns True if it may be this run that it works on: it takes a moment until that is told."""
        return self.project in {"", run.project} and self.run in {"", run.run}


UNKNOWN = Holder("", "", 0, 0.0)
"""Somebody who has just taken the lock, and not said yet who they are."""


class TrainingLock:
    """The lock of a MODEL_DIR. The process that holds it trains; a parent that waits for a child holds nothing."""

    def __init__(self, model_dir: Path) -> None:
        self._file = model_dir.resolve() / "trained" / "lock"
        # Apart from the lock, because whoever waits for a lock may empty its file.
        self._told = self._file.with_name("holder.json")

    @contextmanager
    def held(self, project: str) -> Iterator[Callable[[str], None]]:
        """In here nobody else trains; gives a function that is to be told the run, once there is one.

        `project` is its key. Raises TrainingBusyError where somebody trains, and OSError.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._file, timeout=_LOOKED_AT_FOR_S, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            other = self.holder() or UNKNOWN
            who = "another training" if other == UNKNOWN else str(other)
            raise TrainingBusyError(
                f"A training runs in MODEL_DIR already ({who}): wait for its end, or cancel it"
            ) from None
        me = Holder(project)
        try:
            write_json(self._told, me)
            yield lambda run: write_json(self._told, replace(me, run=run))
        finally:
            self._told.unlink(missing_ok=True)
            lock.release()

    def holder(self) -> Holder | None:
        """Who holds it now, None if nobody does. Raises OSError where the folder can't be used."""
        if not self._file.parent.is_dir():
            return None
        lock = FileLock(self._file, timeout=0)
        try:
            with lock:
                return None
        except Timeout:
            pass
        try:
            return msgspec.json.decode(self._told.read_bytes(), type=Holder)
        except (OSError, ValueError):
            return UNKNOWN


def was_cut_off(run: Run, holder: Holder | None) -> bool:
    """Returns True if a run isn't over, and whoever holds the lock isn't at it: its process was killed."""
    return not run.is_over and not (holder and holder.may_be_at(run))
