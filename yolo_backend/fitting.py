"""Runs `fit` behind the webhook, so that an annotator's save never waits for training."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

_MAX_WAITING_EVENTS = 100


class Fitting(Protocol):
    """What is asked of a model class here."""

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> Any: ...


class FitRunner:
    """Runs `fit` behind the webhook: the events of a project one at a time, in order."""

    def __init__(self, load_class: Callable[[], Callable[..., Fitting]]) -> None:
        self._load_class = load_class
        self._waiting: dict[str, deque[tuple[str, dict[str, Any]]]] = {}
        self._lock = threading.Lock()

    def start(self, event: str, data: dict[str, Any]) -> None:
        """Run `fit` for this event, after those of the same project that came before."""
        project = data.get("project")
        key = str(project.get("id", "")) if isinstance(project, dict) else str(project or "")
        with self._lock:
            running = key in self._waiting
            events = self._waiting.setdefault(key, deque())
            if len(events) >= _MAX_WAITING_EVENTS:
                log.warning("Project %s: %s is dropped, for fit is %d events behind", key, event, len(events))
                return
            events.append((event, data))
            if not running:
                threading.Thread(target=self._run, args=(key,), name=f"fit {key}", daemon=True).start()

    def _run(self, key: str) -> None:
        while True:
            with self._lock:
                events = self._waiting[key]
                if not events:
                    del self._waiting[key]
                    return
                event, data = events.popleft()
            project = data.get("project")
            label_config = project.get("label_config") if isinstance(project, dict) else None
            try:
                self._load_class()(project_id=key, label_config=label_config).fit(event, data)
            except Exception:
                log.exception("Project %s: fit failed on %s", key, event)
