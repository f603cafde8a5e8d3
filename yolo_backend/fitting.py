"""Runs `fit` behind the webhook, so that an annotator's save never waits for training; and tells what became of it."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from yolo_backend.errors import UserError
from yolo_backend.images.sources import redact
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

START_TRAINING = "START_TRAINING"
"""The event of the button in Settings > Model."""

_MAX_WAITING_EVENTS = 100
_MAX_TOLD = 50
_MAX_NAME = 60
_MAX_REASON = 200
# What a training script's error may quote: addresses with a login or a signature, and tokens.
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

_Fit = TypeVar("_Fit", bound=Callable[..., Any])
_placeholders: list[Callable[..., Any]] = []


class Fitting(Protocol):
    """What is asked of a model class here."""

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Training:
    """What became of an event of a project; `asked_at` and `ended_at` are times of day, `reason` is one line.

    It is *ignored* where the class doesn't train, and *dropped* where too many wait.
    """

    project: str
    event: str
    asked_at: float
    state: Literal["waiting", "running", "done", "failed", "ignored", "dropped"]
    reason: str | None = None
    ended_at: float | None = None


def placeholder(fit: _Fit) -> _Fit:
    """Mark a `fit` that does nothing, and is there to be overridden."""
    _placeholders.append(fit)
    return fit


def trains(backend_class: Callable[..., Any]) -> bool:
    """Does a class have a `fit` of its own, or of a base or mixin that isn't ours or label-studio-ml's?"""
    if not isinstance(backend_class, type):
        return True  # what a function makes isn't known before
    owner = next((base for base in backend_class.__mro__ if "fit" in vars(base)), None)
    if owner is None or owner.__module__.partition(".")[0] == "label_studio_ml":
        return False
    fit = getattr(backend_class, "fit", None)
    return callable(fit) and not any(fit is each for each in _placeholders)


class FitRunner:
    """Runs `fit` behind the webhook: the events of a project one at a time, in order."""

    def __init__(self, load_class: Callable[[], Callable[..., Fitting]]) -> None:
        self._load_class = load_class
        self._waiting: dict[str, deque[tuple[Training, dict[str, Any]]]] = {}
        self._told: dict[tuple[str, str], Training] = {}
        self._logged: set[bool] = set()
        self._lock = threading.Lock()

    def told(self) -> list[Training]:
        """What became of the last Start Training of each project, and which other events failed; the newest first."""
        with self._lock:
            return sorted(self._told.values(), key=lambda training: training.asked_at)[::-1]

    def start(self, event: str, data: dict[str, Any]) -> None:
        """Run `fit` for this event, after those of the same project that came before."""
        key = _project_of(data)
        training = Training(key, event, time.time(), "waiting")
        with self._lock:
            running = key in self._waiting
            events = self._waiting.setdefault(key, deque())
            if len(events) >= _MAX_WAITING_EVENTS:
                reason = f"fit is {len(events)} events behind"
                log.warning("Project %s: %s is dropped, for %s", key, event, reason)
                self._tell(replace(training, state="dropped", reason=reason, ended_at=time.time()))
                return
            events.append((training, data))
            self._tell(training)
            if not running:
                threading.Thread(target=self._run, args=(key,), name=f"fit {key[:_MAX_NAME]}", daemon=True).start()

    def ignore(self, event: str, data: dict[str, Any], reason: str) -> None:
        """Tell that nothing is done for this event, and log it once: such events come for each annotation."""
        with self._lock:
            self._ignore(Training(_project_of(data), event, time.time(), "waiting"), reason)

    def _run(self, key: str) -> None:
        while True:
            with self._lock:
                events = self._waiting[key]
                if not events:
                    del self._waiting[key]
                    return
                training, data = events.popleft()
                self._tell(replace(training, state="running"))
            self._fit(training, data)

    def _fit(self, training: Training, data: dict[str, Any]) -> None:
        project = data.get("project")
        label_config = project.get("label_config") if isinstance(project, dict) else None
        reason = None
        try:
            backend_class = self._load_class()
            if not trains(backend_class):
                with self._lock:
                    self._ignore(training, why_ignored(backend_class.__name__))
                return
            backend_class(project_id=training.project, label_config=label_config).fit(training.event, data)
        except BaseException as error:  # a script may end by sys.exit, and the next event is to be heard all the same
            if not (isinstance(error, SystemExit) and error.code in {None, 0}):
                log.exception("Project %s: fit failed on %s", training.project, training.event)
                reason = _told_of(error)
        with self._lock:
            state: Any = "failed" if reason else "done"
            self._tell(replace(training, state=state, reason=reason, ended_at=time.time()))

    def _ignore(self, training: Training, reason: str) -> None:
        is_asked = training.event == START_TRAINING
        if is_asked not in self._logged:
            self._logged.add(is_asked)
            level = logging.WARNING if is_asked else logging.DEBUG
            log.log(level, "Project %s: %s is ignored: %s", training.project, training.event, reason)
        self._tell(replace(training, state="ignored", reason=reason, ended_at=time.time()))

    def _tell(self, training: Training) -> None:
        """Of events beside Start Training only what went wrong is told, until the next such one goes well."""
        key = (training.project[:_MAX_NAME], training.event[:_MAX_NAME])
        if training.event == START_TRAINING or training.state in {"failed", "dropped", "done"}:
            self._told.pop(key, None)
        if training.event == START_TRAINING or training.state in {"failed", "dropped"}:
            self._told[key] = replace(training, project=key[0], event=key[1])
            if len(self._told) > _MAX_TOLD:
                del self._told[next(iter(self._told))]


def why_ignored(class_name: str) -> str:
    """What a person reads who asks a class to train that doesn't."""
    return (
        f"Nothing is trained: the class {class_name[:_MAX_NAME]} doesn't train. Override its fit, see "
        "docs/extending.md, and restart the backend"
    )


def _project_of(data: dict[str, Any]) -> str:
    project = data.get("project")
    return str(project.get("id", "")) if isinstance(project, dict) else str(project or "")


def _told_of(error: BaseException) -> str:
    """An error in one line, without what it may quote of secrets; the log has the whole."""
    if isinstance(error, UserError):
        return _without_secrets(str(error))
    if isinstance(error, SystemExit):
        return f"it ended by sys.exit({_without_secrets(repr(error.code))})"
    try:
        text = first_line(error)
    except Exception:  # an error of one's own may fail to say what it is
        text = ""
    name = type(error).__name__
    return _without_secrets(name if text in {"", name} else f"{name}: {text}")


def _without_secrets(text: str) -> str:
    text = _SECRET.sub("...", _ADDRESS.sub(lambda found: redact(found[0]), text))
    text = _NAMED_SECRET.sub(r"\1...", text)
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "..."
