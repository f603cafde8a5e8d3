"""Which weights serve under which name: read when they are first asked for, and switched when a new file lies there."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from yolo_backend.detection.detections import Runtime, WeightsInfo
from yolo_backend.detection.detector import LOAD_TIMEOUT_S, AbandonedError, DetectorError
from yolo_backend.detection.pool import ModelPool, WeightsLoadingError, loads_too_long
from yolo_backend.detection.weights import (
    DownloadError,
    Signature,
    WeightsError,
    WeightsFile,
    WeightsReplacedError,
    read_weights_file,
    signature_of,
)
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_RETRY_AFTER_S = 20.0
_REFUSED_FOR_S = 600.0  # what kept a new file from being used may pass, such as too little memory
_FAILURES_KEPT = 100
_AWAITED_KEPT = 1000  # strangers may name any project
_GONE: Signature = ()


class Shelf(Protocol):
    """Where weights lie."""

    def missing(self, name: str) -> str | None:
        """That there are none of this name, and what to do, where that is seen at a glance."""

    def find(self, name: str) -> Path:
        """The file of this name, which may be downloaded first. Raises WeightsError."""


@dataclass(eq=False)
class _Named:
    """What serves under a name, or why nothing does, and what is seen of a newer file.

    `seen` is the file at the last look, `refused` the one that can't be used, since `refused_at`. The weights `instead`
    serve, if any, where there is no file of this name.
    """

    name: str
    instead: str | None = None
    file: WeightsFile | None = None
    info: WeightsInfo | None = None
    error: WeightsError | None = None
    began_at: float | None = None
    failed_at: float = 0.0
    is_read: threading.Event = field(default_factory=threading.Event)
    seen: Signature | None = None
    refused: Signature | None = None
    refused_at: float = 0.0
    why_not: str | None = None

    def fail(self, error: BaseException) -> None:
        """These weights can't be had, for now."""
        if not isinstance(error, WeightsError):
            if not isinstance(error, DetectorError):  # which the log has already
                log.error("Weights %s can't be read", self.name, exc_info=error)
            error = WeightsError(f"Weights {self.name}: {first_line(error)}")
        if isinstance(error, DownloadError):  # the server goes on, so nobody else tells its operator
            log.error("%s", error)
        self.failed_at = time.monotonic()
        self.error = error
        self.info = None

    def refuse(self, signature: Signature, reason: str) -> None:
        """A new file doesn't serve."""
        self.refused, self.refused_at = signature, time.monotonic()
        if self.file:
            self.why_not = f"A new file {self.name} can't be used, so the one before it serves: {reason}"
        else:
            self.why_not = f"A new file {self.name} can't be used, so {self.instead} serves: {reason}"
        log.error("%s", self.why_not)

    def is_refused(self, signature: Signature) -> bool:
        return signature == self.refused and time.monotonic() - self.refused_at < _REFUSED_FOR_S

    def is_to_be_tried_again(self) -> bool:
        """Returns True if it couldn't be read a while ago, or while it was being written."""
        is_written = isinstance(self.error, WeightsReplacedError)
        return self.error is not None and (is_written or time.monotonic() - self.failed_at > _RETRY_AFTER_S)


class Catalog:
    """The weights by their names; for any thread.

    With `watch`, a file that is replaced is read, exported and warmed up beside the one that serves; then the name
    stands for the new one. A new file that can't be used changes nothing. A name that others serve `instead` of is
    watched, too: for its file to come, which may take their place then, and to go.
    """

    def __init__(self, shelf: Shelf, pool: ModelPool) -> None:
        self.pool = pool
        self._shelf = shelf
        self._named: dict[str, _Named] = {}
        self._awaited: OrderedDict[str, _Named] = OrderedDict()  # those asked for whose file isn't there, or not ready
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._watches = False
        self._watcher: threading.Thread | None = None

    def info(self, name: str) -> WeightsInfo:
        """What is known of these weights, at once; starts reading them if need be.

        Raises WeightsLoadingError while they are read and WeightsError where that failed.
        """
        return self.wait_for_info(name, 0)

    def wait_for_info(self, name: str, timeout_s: float | None) -> WeightsInfo:
        """The same as `info`, but waits until the weights are read. Raises WeightsLoadingError when the time is up."""
        named = self._reading(name)
        named.is_read.wait(timeout_s)
        info, error = named.info, named.error
        if info:
            return info
        if error:
            raise type(error)(str(error))  # a new one each time, because a traceback grows with each raise
        raise WeightsLoadingError(f"Loading {name}, try again")

    def serving(self, name: str, instead: str) -> str:
        """The name of what serves: `name` if there is such a file and it is ready, and else `instead`.

        A file that is there when it is first asked for serves from the start, and is waited for.
        """
        with self._lock:
            named = self._named.get(name)
            if named and not named.error:
                return name
            if name in self._awaited:
                self._awaited.move_to_end(name)
                return instead
        if self._shelf.missing(name):
            with self._lock:
                if self._named.get(name) is named:
                    self._named.pop(name, None)
                    self._await(_Named(name, instead))
                    return instead
        self._reading(name, instead)
        return name

    def find(self, name: str) -> Path:
        """The file of these weights as it lies there now. Raises WeightsError."""
        return self._shelf.find(name)

    def wait_for_runtime(self, name: str) -> Runtime:
        """Where their model runs, as soon as it is loaded. Raises WeightsError, DetectorError."""
        return self.pool.wait_for_runtime(self.wait_for_info(name, None).fingerprint)

    def down_reason(self, name: str) -> str | None:
        """Why these weights can't detect now, in one line for a person; None also where only a try can tell."""
        with self._lock:
            named = self._named.get(name)
        if named is None:
            return None
        if named.file:
            return self.pool.down_reason(named.file.fingerprint)
        began_at = None if named.is_read.is_set() else named.began_at
        is_late = began_at is not None and time.monotonic() - began_at > LOAD_TIMEOUT_S
        return loads_too_long(name) if is_late else None

    def refused(self) -> list[str]:
        """Of new files that don't serve: why, each in one line for a person."""
        with self._lock:
            return [each.why_not for each in (*self._named.values(), *self._awaited.values()) if each.why_not]

    def watch(self) -> None:
        """Look for new files every two seconds, from the first question on, because a thread doesn't survive a fork."""
        self._watches = True

    def look(self) -> None:
        """See whether there are new files under the names that serve, and switch to those that can."""
        with self._lock:
            serving = [named for named in self._named.values() if named.info]
            awaited = list(self._awaited.values())
        with self._looking:
            for named in (*serving, *awaited):
                self._look_at(named)
        self.pool.put_away_unused()

    def close(self, wait_s: float = 0.0) -> None:
        """Look for new files no longer, and put all models away, as `ModelPool.close` does."""
        self._closed.set()
        self.pool.close(wait_s)

    def _reading(self, name: str, instead: str | None = None) -> _Named:
        """What is known under a name; where that is nothing, a thread begins to read the file."""
        with self._lock:
            named = self._named.get(name)
            if named and not named.is_to_be_tried_again():
                return named
        if problem := self._shelf.missing(name):
            raise WeightsError(problem)
        with self._lock:
            named = self._named.get(name)
            if named is None or named.is_to_be_tried_again():
                named = _Named(name, instead or (named.instead if named else None))
                threading.Thread(target=self._read, args=(named,), name=f"read {name}", daemon=True).start()
                self._named[name] = named
                self._forget_failures()
            self._begin_to_watch()
            return named

    def _await(self, named: _Named) -> None:
        """Keep a name whose file isn't there, to be looked for; the lock is held."""
        self._awaited[named.name] = named
        if len(self._awaited) > _AWAITED_KEPT:
            self._awaited.popitem(last=False)
        self._begin_to_watch()

    def _begin_to_watch(self) -> None:
        if self._watches and self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="new weights", daemon=True)
            self._watcher.start()

    def _read(self, named: _Named) -> None:
        """Read what lies under a name, and then see whether it can be used, which may take long."""
        file = None
        try:
            path = self._shelf.find(named.name)
            named.began_at = time.monotonic()  # only now, for a download may take longer, and has limits of its own
            file = read_weights_file(named.name, path)
            self.pool.serve(file)
            named.file = file
            try:
                named.info = self._info_of(file)
                named.is_read.set()
                self.pool.load(file.fingerprint, self._closed.is_set)
            except AbandonedError:
                pass  # the backend is stopping
            except BaseException:
                self.pool.withdraw(file)
                raise
        except BaseException as error:
            if named.file is file:  # otherwise another one serves by now
                named.fail(error)
        finally:
            named.is_read.set()

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # a fault of ours; it will look again
                log.exception("It can't be seen whether weights were replaced")

    def _look_at(self, named: _Named) -> None:
        """Switch to the file that lies there by now, if it isn't being written still, and can be used."""
        before = named.file
        signature = _GONE
        try:
            if before or not self._shelf.missing(named.name):
                signature = signature_of(before.path if before else self._shelf.find(named.name))
        except OSError:
            pass
        except WeightsError as error:
            if named.why_not is None:
                named.refuse(signature, str(error))
            return
        if signature == (before.signature if before else _GONE):
            named.seen, named.why_not = None, None
        elif signature != named.seen:
            named.seen = signature  # a file that is still being written looks different at the next look
        elif signature == _GONE and before:
            self._go_back(named, before)
        elif not named.is_refused(signature):
            try:
                self._switch(named, before)
            except (AbandonedError, WeightsReplacedError):
                named.seen = None  # to be looked at again
            except Exception as error:
                if not isinstance(error, WeightsError | DetectorError):
                    log.exception("A new file %s can't be used", named.name)
                named.refuse(signature, first_line(error))

    def _go_back(self, named: _Named, before: WeightsFile) -> None:
        """The file is gone: those that serve instead do so again, where there are any."""
        if named.instead is None:
            named.why_not = f"The file {named.name} is gone: what was read of it serves, until the backend is restarted"
            return
        with self._lock:
            del self._named[named.name]
            self._await(_Named(named.name, named.instead))
        self.pool.withdraw(before)
        log.warning("%s is gone: %s serves from now on", named.name, named.instead)

    def _switch(self, named: _Named, before: WeightsFile | None) -> None:
        """Serve the file that lies there now. Raises WeightsError, DetectorError where it can't be used."""
        file = read_weights_file(named.name, self._shelf.find(named.name))
        self.pool.know(file)
        if before and file.fingerprint == before.fingerprint:
            named.file, named.why_not = file, None
            return
        what = f"{named.name} were replaced" if before else f"{named.name} came"
        log.info("%s: reading the new file", what)
        with self.pool.using([file.fingerprint]):
            try:
                info = self._prepare(file, before or self._file_of(named.instead))
            except BaseException:
                self.pool.drop(file.fingerprint)
                raise
            named.info, named.file, named.why_not = info, file, None
            self.pool.serve(file, before)
            with self._lock:
                if self._awaited.pop(named.name, None):
                    named.is_read.set()
                    self._named[named.name] = named
        log.warning("%s: the new file serves from now on", what)

    def _file_of(self, name: str | None) -> WeightsFile | None:
        with self._lock:
            named = self._named.get(name) if name else None
            return named.file if named else None

    def _prepare(self, file: WeightsFile, before: WeightsFile | None) -> WeightsInfo:
        """Load what is to serve in the place of `before`; an export is wanted where that one has one."""
        self.pool.load(file.fingerprint, self._closed.is_set)
        fallback = self.pool.wait_for_runtime(file.fingerprint).fallback
        known = self.pool.runtimes().get(before.fingerprint) if before else None
        if fallback and not (known and known.fallback):
            raise WeightsError(fallback)
        return self._info_of(file)

    def _info_of(self, file: WeightsFile) -> WeightsInfo:
        """Under this file's own name, for others may have the same weights."""
        return replace(self.pool.wait_for_info(file.fingerprint, None), name=file.path.name)

    def _forget_failures(self) -> None:
        failed = [name for name, named in self._named.items() if named.error]
        for name in failed[: max(0, len(failed) - _FAILURES_KEPT)]:
            del self._named[name]
