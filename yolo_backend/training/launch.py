"""Starts a training as a process of its own, watches it, and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr, TypeAdapter

from yolo_backend.child_processes import python_command, python_environment
from yolo_backend.errors import UserError
from yolo_backend.settings import Settings
from yolo_backend.training.diary import CANCELLED
from yolo_backend.training.lock import UNKNOWN, Holder, TrainingLock
from yolo_backend.training.records import Options, Run, State, run_from_json
from yolo_backend.training.registry import ProjectModels

CHILD = "yolo_backend.training.child"
CANCEL = "cancel"  # a file in the folder of a run, for who can't send its process a signal

_SECRETS = {"label_studio_api_key": "LABEL_STUDIO_API_KEY", "basic_auth_pass": "BASIC_AUTH_PASS"}
_LOOK_EACH_S = 0.2
_TERM_WAITS_S = 5.0
_FILE_WAITS_S = 10.0
_TELLING_TAKES_S = 2.0


class TrainingStartError(UserError):
    """A training that couldn't begin; the message says what to do. `is_busy` if another one runs."""

    def __init__(self, message: str, *, is_busy: bool = False) -> None:
        super().__init__(message)
        self.is_busy = is_busy


class CancelError(UserError):
    """A training that can't be cancelled from here; the message says what to do."""


@dataclass(frozen=True)
class Order:
    """What the child is told over its standard input: a project of Label Studio's, and how it is to be trained.

    `settings` go by field name, without those that are secret: these are in its environment. `may_be_path` says that
    the base was named by the operator, `cores` are those that the process may run on.
    """

    project: int
    options: Options
    settings: Mapping[str, Any]
    may_be_path: bool = False
    cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class Begun:
    """What the child answers, in one line: the folder of its run, or why there is none."""

    folder: str | None = None
    failure: str | None = None
    is_busy: bool = False


@dataclass
class Training:
    """A training that has begun, in a process of its own, which ends when this one does."""

    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def run(self) -> Run:
        """How it stands, as its run.json says."""
        return run_from_json((self.folder / "run.json").read_bytes())

    def wait(self, told: Callable[[Run], None] = lambda _: None) -> Run:
        """Wait for its end; `told` hears of all that changes meanwhile. Returns the run as it ended."""
        content = b""
        while True:
            is_over = self.process.poll() is not None
            if (now := (self.folder / "run.json").read_bytes()) != content:
                content = now
                told(run_from_json(now))
            if is_over:
                self._close()
                return self._ended(run_from_json(content))
            time.sleep(_LOOK_EACH_S)

    def cancel(self) -> None:
        """End it, within five seconds if it can write its end down, else by force."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(_TERM_WAITS_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._close()
        with suppress(OSError, ValueError):
            self._note_end(self.run(), "cancelled", CANCELLED)

    def _close(self) -> None:
        """Let go of the lifeline of a process that has ended."""
        if self.process.stdin:
            self.process.stdin.close()

    def _ended(self, run: Run) -> Run:
        """The run, with an end also where its process was killed before it could write one."""
        return self._note_end(run, "failed", _why_died(self.process.returncode, "its log says why"))

    def _note_end(self, run: Run, state: State, failure: str) -> Run:
        if run.is_over:
            return run
        models = ProjectModels(run.project, self.folder.parents[3])
        ended = models.ended(run, state, failure)
        with suppress(OSError):  # on a full disk it stays one that was cut off
            models.write(ended)
        return ended


def settings_of(order: Order) -> Settings:
    """The settings of who gave the order, with the secrets of this process's environment."""
    values: dict[str, Any] = {}
    for name, value in order.settings.items():
        adapter: TypeAdapter[Any] = TypeAdapter(Settings.model_fields[name].annotation or Any)
        values[name] = adapter.validate_python(value)
    for name, variable in _SECRETS.items():
        secret = os.environ.get(variable)
        values[name] = SecretStr(secret) if secret else None
    # As they are: they were checked, and what else is in this environment, or in a `.env`, was left out.
    return Settings.model_construct(**values)


def start(project: int, options: Options, settings: Settings, *, may_be_path: bool = False) -> Training:
    """Start a training of a project, and wait until it has begun: Label Studio is asked for the project.

    The child holds the lock, writes to the run's training.log, and dies with this process, whose end it sees at its
    standard input. Raises TrainingStartError.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  our own command line
            python_command(CHILD),
            env=python_environment() | _secrets(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # weighed against others as a whole, and ended as a whole
        )
    except OSError as error:
        raise TrainingStartError(
            f"The training's process can't be started ({error.strerror}): give the machine or the container more "
            "memory, or more processes"
        ) from None
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018, S101  for mypy
    order = Order(project, options, _told_settings(settings), may_be_path, _own_cores())
    try:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    except BaseException:  # such as Ctrl-C
        process.kill()
        process.wait()
        raise
    try:
        begun = msgspec.json.decode(line, type=Begun)
    except ValueError:  # nothing, from a process that died
        begun = Begun()
    process.stdout.close()
    if begun.folder is None:
        process.stdin.close()
        process.wait()
        died = _why_died(process.returncode, "what it printed last, here or in the server's log, says why")
        raise TrainingStartError(begun.failure or died, is_busy=begun.is_busy)
    return Training(Path(begun.folder), process)


def cancel_running(model_dir: Path, is_meant: Callable[[Holder], bool]) -> Holder:
    """End the training that holds the lock of this MODEL_DIR, whoever started it; returns which it was.

    Raises CancelError where none runs, where it isn't meant, or where it doesn't end.
    """
    lock = TrainingLock(model_dir)
    try:
        holder = _holder(lock)
    except PermissionError:
        raise CancelError(
            f"Trainings in {model_dir.resolve()} are another user's: cancel as the user who started them"
        ) from None
    if holder is None or not is_meant(holder):
        other = f": {holder} is under way" if holder else f" (MODEL_DIR={model_dir.resolve()})"
        raise CancelError(f"No training of this project runs{other}")
    if _is_told_to_end(holder.pid):
        if not _is_free_after(lock, holder, _TERM_WAITS_S) and _is_child(holder.pid):
            with suppress(ProcessLookupError):
                os.killpg(holder.pid, signal.SIGKILL)
    else:  # in another container, whose processes have numbers of their own, or of another user
        with suppress(OSError):
            (model_dir / "trained" / holder.project / "runs" / holder.run / CANCEL).touch()
    if not _is_free_after(lock, holder, _FILE_WAITS_S):
        raise CancelError(
            f"{holder} doesn't end: it may be on another machine, in a container, or another user's; stop it there, "
            "or as that user"
        )
    return holder


def _is_told_to_end(pid: int) -> bool:
    """Send a training the signal to end. Returns False if none gets there."""
    if not _is_child(pid):
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        return False
    except ProcessLookupError:  # it has just ended
        pass
    return True


def _holder(lock: TrainingLock) -> Holder | None:
    """Who holds it; who has just taken it is given the time to say who they are."""
    ends_at = time.monotonic() + _TELLING_TAKES_S
    while (holder := lock.holder()) is not None and not holder.run and time.monotonic() < ends_at:
        time.sleep(_LOOK_EACH_S)
    return holder


def _is_free_after(lock: TrainingLock, holder: Holder, timeout_s: float) -> bool:
    ends_at = time.monotonic() + timeout_s
    while (now := lock.holder()) is not None and now.pid in {holder.pid, UNKNOWN.pid}:
        if time.monotonic() >= ends_at:
            return False
        time.sleep(_LOOK_EACH_S)
    return True


def _is_child(pid: int) -> bool:
    """Returns True if this process is a training: by now the number may be another's."""
    try:
        return CHILD.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _own_cores() -> tuple[int, ...]:
    """Those of the process: a thread may be kept to one of them."""
    return tuple(sorted(os.sched_getaffinity(os.getpid()))) if hasattr(os, "sched_getaffinity") else ()


def _told_settings(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude=set(_SECRETS))


def _secrets(settings: Settings) -> dict[str, str]:
    """The secrets' variables, those that aren't set as empty ones."""
    found = {variable: getattr(settings, name) for name, variable in _SECRETS.items()}
    return {variable: secret.get_secret_value() if secret else "" for variable, secret in found.items()}


def _why_died(status: int | None, more: str) -> str:
    if status == -signal.SIGKILL:
        return (
            "The training was killed, most likely because memory ran out: give the container or the machine more, or "
            "choose smaller images (--image-size) or a smaller base"
        )
    return f"The training's process died (exit status {status}): {more}"
