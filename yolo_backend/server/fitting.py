"""Runs `fit` after the webhook has answered, so that an annotator's save never waits for training."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from yolo_backend.addresses import redact
from yolo_backend.errors import UserError
from yolo_backend.fit_hook import START_TRAINING, trains_at
from yolo_backend.messages import first_line
from yolo_backend.request_ids import carrying

log = logging.getLogger(__name__)

# A training takes the whole machine. A few run at once, so that a long one doesn't hold up another project's.
_MAX_THREADS = 4
_MAX_WAITING_EVENTS, _MAX_WAITING_PROJECTS = 100, 100  # of each project; a webhook may name any project
_MAX_TOLD = 50
_MAX_NAME = 60
_MAX_REASON = 200
# Secrets that a training script's error may quote: tokens, and addresses with a login or a signature.
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_SECRET = re.compile(
    r"\beyJ[\w-]+(\.[\w-]*)*|\b[0-9a-f]{40}\b"
    r"|(?<=\bToken )\S+|(?<=\bBearer )\S+|(?<=\bBasic )\S+",
    re.IGNORECASE,
)
_NAMED_SECRET = re.compile(
    r"((?:token|passw(?:or)?d|passphrase|api_?key|secret\w*|access_?key\w*)['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]+",
    re.IGNORECASE,
)


class Fitting(Protocol):
    """What this module needs of a model class."""

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Training:
    """What became of an event of a project; `asked_at` and `ended_at` are times of day, `reason` is one line.

    It is *ignored* if the class doesn't train, and *dropped* if too many wait.
    """

    project: str
    event: str
    asked_at: float
    state: Literal["waiting", "running", "done", "failed", "ignored", "dropped"]
    reason: str | None = None
    ended_at: float | None = None


class FitRunner:
    """Runs `fit` in the background: a project's events one at a time and in order, a few projects at once."""

    def __init__(self, load_class: Callable[[], Callable[..., Fitting]], *, training_is_on: bool = False) -> None:
        self._load_class = load_class
        self._training_is_on = training_is_on
        # The events that wait, for each project that has one under way.
        self._waiting: dict[str, deque[tuple[Training, Callable[[Training], Training]]]] = {}
        self._turns: deque[str] = deque()  # the projects whose next event may run, in the order in which they came
        self._threads = 0
        self._told: dict[tuple[str, str], Training] = {}
        self._logged: set[bool] = set()
        self._lock = threading.Lock()

    def told(self) -> list[Training]:
        """What became of the last Start Training of each project, and which other events failed; the newest first."""
        with self._lock:
            return sorted(self._told.values(), key=lambda training: training.asked_at)[::-1]

    def start(self, event: str, data: dict[str, Any]) -> None:
        """Run `fit` for this event, after the project's earlier ones."""
        key = _project_of(data)
        training = Training(key, event, time.time(), "waiting")
        with self._lock:
            reason = self._why_dropped(key)
            if reason:
                self._tell(replace(training, state="dropped", reason=reason, ended_at=time.time()))
            else:
                self._queue(key, training, carrying(lambda training: self._fit(training, data)))
        if reason:
            log.warning("Project %s: %s is dropped because %s", key, event, reason)

    def ignore(self, event: str, data: dict[str, Any], reason: str) -> None:
        """Note that nothing is done for this event. It is logged once, because such events come for each annotation."""
        ignored = self._ignored(Training(_project_of(data), event, time.time(), "waiting"), reason)
        with self._lock:
            self._tell(ignored)

    def _why_dropped(self, key: str) -> str | None:
        events = self._waiting.get(key, ())
        if len(events) >= _MAX_WAITING_EVENTS:
            return f"fit is {len(events)} events behind"
        if key not in self._waiting and len(self._waiting) >= _MAX_WAITING_PROJECTS:
            return f"fit is behind in {len(self._waiting)} other projects already"
        return None

    def _queue(self, key: str, training: Training, fit: Callable[[Training], Training]) -> None:
        if key not in self._waiting:
            self._waiting[key] = deque()
            self._turns.append(key)
        self._waiting[key].append((training, fit))
        self._tell(training)
        if self._turns and self._threads < _MAX_THREADS:
            threading.Thread(target=self._run, name="fit", daemon=True).start()
            self._threads += 1  # it waits for the lock

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._turns:
                    self._threads -= 1
                    return
                key = self._turns.popleft()
                training, fit = self._waiting[key].popleft()
                self._tell(replace(training, state="running"))
            ended = fit(training)
            with self._lock:
                self._tell(replace(ended, ended_at=time.time()))
                if self._waiting[key]:
                    self._turns.append(key)
                else:
                    del self._waiting[key]

    def _fit(self, training: Training, data: dict[str, Any]) -> Training:
        """How it ended. Raises nothing, whatever the class does, so that the next event runs, too."""
        project = data.get("project")
        label_config = project.get("label_config") if isinstance(project, dict) else None
        reason: str | None = None
        try:
            backend_class = self._load_class()
            if not trains_at(backend_class, training.event, training_is_on=self._training_is_on):
                return self._ignored(training, why_ignored(backend_class.__name__))
            backend_class(project_id=training.project, label_config=label_config).fit(training.event, data)
        except BaseException as error:  # a script may end by sys.exit
            reason = "it can't say why"
            with suppress(BaseException):  # looking at an error runs its own code
                reason = _told_of(error)
            if reason:
                with suppress(BaseException):
                    log.exception("Project %s: fit failed on %s", training.project, training.event)
        return replace(training, state="failed" if reason else "done", reason=reason)

    def _ignored(self, training: Training, reason: str) -> Training:
        is_asked = training.event == START_TRAINING
        with self._lock:
            is_new = is_asked not in self._logged
            self._logged.add(is_asked)
        if is_new:
            level = logging.WARNING if is_asked else logging.DEBUG
            log.log(level, "Project %s: %s is ignored: %s", training.project, training.event, reason)
        return replace(training, state="ignored", reason=reason, ended_at=time.time())

    def _tell(self, training: Training) -> None:
        """Keep it for the page. Of events other than Start Training, only a failure is kept, until one goes well."""
        key = (training.project[:_MAX_NAME], training.event[:_MAX_NAME])
        if training.event == START_TRAINING or training.state in {"failed", "dropped", "done"}:
            self._told.pop(key, None)
        if training.event == START_TRAINING or training.state in {"failed", "dropped"}:
            self._told[key] = replace(training, project=key[0], event=key[1])
            if len(self._told) > _MAX_TOLD:
                del self._told[next(iter(self._told))]


def why_ignored(class_name: str) -> str:
    """The message for a person who asks a class to train that doesn't."""
    return (
        f"Nothing is trained: the class {class_name[:_MAX_NAME]} doesn't train. Set TRAINING=on or override its fit, "
        "see docs/training.md, and restart the backend"
    )


def _project_of(data: dict[str, Any]) -> str:
    project = data.get("project")
    return str(project.get("id", "")) if isinstance(project, dict) else str(project or "")


def _told_of(error: BaseException) -> str | None:
    """An error in one line, without secrets that it may quote; None if a script ended well by `sys.exit`."""
    if isinstance(error, UserError):
        return _without_secrets(str(error))
    if isinstance(error, SystemExit):
        return None if error.code in (None, 0) else f"it ended by sys.exit({_without_secrets(repr(error.code))})"
    try:
        text = first_line(error)
    except BaseException:  # the text of a user's own error may itself fail
        text = ""
    name = type(error).__name__
    return _without_secrets(name if text in {"", name} else f"{name}: {text}")


def _without_secrets(text: str) -> str:
    text = _SECRET.sub("...", _ADDRESS.sub(lambda found: redact(found[0]), text))
    text = _NAMED_SECRET.sub(r"\1...", text)
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "..."
