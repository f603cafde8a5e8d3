"""The child process: a run from its beginning to its end. `launch.start` starts it, and tells it what to do."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec

from yolo_backend.errors import UserError
from yolo_backend.settings import Settings
from yolo_backend.training.errors import told_of
from yolo_backend.training.launch import CANCEL, Begun, Order, settings_of
from yolo_backend.training.lock import TrainingBusyError
from yolo_backend.training.policy import give_way, use_cores
from yolo_backend.training.registry import LOG

_ENDINGS = {signal.SIGTERM, signal.SIGINT}
_LOOK_EACH_S = 0.2
_BOOKS_WAIT_S = 2.0


class Cancellable(Protocol):
    """Where it is written down that a run was cancelled, within so many seconds."""

    def cancel(self, timeout_s: float) -> None: ...


class Ending:
    """What ends this process from outside, in the midst of anything: SIGTERM, a file, or its parent's end.

    Threads wait for it, and not a handler, because Python runs that only between two steps of its own, and a pass
    through a large network is one step. They begin before the process gives way to others, so that they are quick.
    """

    def __init__(self) -> None:
        self.cancel_file: Path | None = None
        self.diary: Cancellable | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)  # in all threads to come, too
        threading.Thread(target=self._await_cancelling, name="cancelling", daemon=True).start()
        threading.Thread(target=self._await_end_of_parent, name="lifeline", daemon=True).start()

    def _await_cancelling(self) -> None:
        # Not sigtimedwait, which macOS hasn't.
        while not signal.sigpending() & _ENDINGS and not (self.cancel_file and self.cancel_file.exists()):
            time.sleep(_LOOK_EACH_S)
        try:
            if self.diary:
                self.diary.cancel(_BOOKS_WAIT_S)
        finally:
            _end_at_once()

    def _await_end_of_parent(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        _end_at_once()  # without an end in run.json: it was cut off, and may be begun anew


def main() -> None:
    """Exits with 2, and says why in a line on standard output, if the run can't begin; then in run.json."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    order = msgspec.json.decode(_first_line(), type=Order)
    settings = settings_of(order)
    ending = Ending()
    remarks = use_cores(order.cores)
    from yolo_backend.training.run import begin_run  # with libraries that ask the environment for threads

    with ExitStack() as stack:
        try:
            run = stack.enter_context(begin_run(order, settings))
        except (UserError, OSError) as error:
            _answer(answers, Begun(failure=told_of(error), is_busy=isinstance(error, TrainingBusyError)))
            raise SystemExit(2) from None
        ending.diary, ending.cancel_file = run.diary, run.folder / CANCEL
        _answer(answers, Begun(folder=str(run.folder)))
        _write_to(run.folder / LOG)
        # Somebody has waited for it to begin, and nobody does any more.
        for remark in (*remarks, *give_way(on_gpu=_has_gpu(settings))):
            logging.getLogger(__name__).warning(remark)
        from yolo_backend.training.stages import work  # with torch, whose threads give way as this one does

        work(run)


def _first_line() -> bytes:
    """What comes up to the end of a line; nothing after it, because that is the lifeline's."""
    line = bytearray()
    while not line.endswith(b"\n"):
        read = os.read(sys.stdin.fileno(), 1)
        if not read:
            raise SystemExit(2)
        line += read
    return bytes(line)


def _has_gpu(settings: Settings) -> bool:
    """Whether it will train on a GPU, as far as that is seen without torch."""
    if settings.device == "auto":
        return Path("/dev/nvidiactl").exists() and not version("torch").endswith("+cpu")
    return settings.device != "cpu"


def _answer(answers: int, begun: Begun) -> None:
    os.write(answers, msgspec.json.encode(begun) + b"\n")
    os.close(answers)


def _write_to(log: Path) -> None:
    """From here on, what anybody prints goes into the run's log."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    os.close(file)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)  # whose warnings hold whole addresses


def _end_at_once() -> None:
    """With all processes that this one started, such as an exporter."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
