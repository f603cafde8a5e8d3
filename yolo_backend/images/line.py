"""Ends fetching early: if an image's time is over, or if nobody waits for the task any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import TypeVar

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import HungUpError, ImageError

T = TypeVar("T")


class Line:
    """The line over which one task's images are fetched. One thread fetches over it; any thread may hang up.

    The fetching thread calls `on_host` with the "host" or "host:port" that it is about to talk to, and again at every
    redirect. The port is left out if it is the scheme's own. For an upload that was read from the disk, it is called
    with the upload's `pseudo_host`.
    """

    def __init__(self, on_host: Callable[[str], None] | None = None) -> None:
        self.on_host = on_host
        self.alarm: Alarm | None = None  # of the image that is being fetched; under the clock's lock
        self._is_hung_up = False

    @property
    def is_hung_up(self) -> bool:
        """Returns True once somebody has hung up, for ever."""
        return self._is_hung_up

    def hang_up(self) -> None:
        """End what is being fetched now, and all later fetching. Waits for nothing."""
        # Under the clock's lock, because a thread that has given its connection back has left its alarm.
        with _clock.changed:
            self._is_hung_up = True
            if self.alarm is not None:
                self.alarm.ring()


class Alarm:
    """Hangs up when an image's time is over. A read time-out is for each piece, so a slow server would never meet it.

    It is a context manager. Inside, it hangs up on the connections that this thread uses, also when somebody hangs up
    the line.
    """

    def __init__(self, timeout_s: float, line: Line | None = None) -> None:
        self._timeout_s = timeout_s
        self.ends_at = time.monotonic() + timeout_s
        self.line = line or Line()
        self._hang_up: Callable[[], object] | None = None
        self._has_rung = False

    def __enter__(self) -> Alarm:
        this_thread.alarm = self
        _clock.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _clock.cancel(self)
        this_thread.alarm = None

    def left_s(self) -> float:
        """The time that is left. Raises ImageError if none is left, and HungUpError if somebody has hung up.

        In both cases, what was read from a connection isn't complete.
        """
        if self.line.is_hung_up:
            raise HungUpError("nobody waits for this image any more")
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise ImageError(FailureKind.TIMEOUT, f"the image didn't arrive within {self._timeout_s:g} s")
        return left_s

    def watch(self, hang_up: Callable[[], object]) -> None:
        """Call `hang_up` when the time is over, or at once if it is. It has to wake this thread, and may not wait."""
        with _clock.changed:
            self._hang_up = hang_up
            if self._has_rung or self.line.is_hung_up or time.monotonic() >= self.ends_at:
                self.ring()

    def let_go(self) -> bool:
        """Stop watching. Returns True if it was hung up on already."""
        with _clock.changed:
            self._hang_up = None
            return self._has_rung

    def wait_for(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, unless the time is over sooner.

        It runs in a thread of its own and goes on in any case, because others may wait for its result, too.
        """
        future: Future[T] = Future()

        def run() -> None:
            settle: Callable[[], None]
            try:
                settle = partial(future.set_result, call())
            except BaseException as error:
                settle = partial(future.set_exception, error)
            with suppress(InvalidStateError):  # nobody waits any more
                settle()

        threading.Thread(target=run, name="asks for an image", daemon=True).start()
        self.watch(future.cancel)
        try:
            return future.result()
        except CancelledError:
            self.left_s()
            raise
        finally:
            self.let_go()

    def ring(self) -> None:
        """The time is over."""
        self._has_rung = True
        if self._hang_up is not None:
            self._hang_up()


class _AlarmClock:
    """One thread for all alarms, because timers would start a thread for each image."""

    def __init__(self) -> None:
        self._alarms: set[Alarm] = set()
        self._wakes_at = float("inf")
        self.changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, alarm: Alarm) -> None:
        with self.changed:
            self._alarms.add(alarm)
            alarm.line.alarm = alarm
            if self._thread is None or not self._thread.is_alive():  # in the child of a fork it isn't
                self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                self._thread.start()
            elif alarm.ends_at < self._wakes_at:
                self.changed.notify()

    def cancel(self, alarm: Alarm) -> None:
        with self.changed:
            self._alarms.discard(alarm)
            alarm.line.alarm = None

    def _run(self) -> None:
        while True:
            with self.changed:
                now = time.monotonic()
                due = {alarm for alarm in self._alarms if alarm.ends_at <= now}
                self._alarms -= due
                if not due:
                    self._wakes_at = min((alarm.ends_at for alarm in self._alarms), default=float("inf"))
                    self.changed.wait(None if self._wakes_at == float("inf") else self._wakes_at - now)
                # Under the lock: a thread that has left its alarm has given its connection back, and others may use it.
                for alarm in due:
                    alarm.ring()


_clock = _AlarmClock()


class _ThisThread(threading.local):
    alarm: Alarm | None = None


this_thread = _ThisThread()
