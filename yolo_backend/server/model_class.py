"""The class that serves, by its name. It is imported in the background, because label-studio-ml imports torch."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from yolo_backend.errors import UserError
from yolo_backend.server.fitting import Fitting

log = logging.getLogger(__name__)


class ModelClassError(UserError):
    """A class that can't be served."""


class ModelClassLoadingError(Exception):
    """The class is still being imported."""


class Backend(Fitting, Protocol):
    """What the server asks of a model class: `YoloBackend` or a subclass of it."""

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> Any: ...


class ModelClass:
    """The class that serves, made by `load` when it is first needed."""

    def __init__(self, name: str, load: Callable[[], Callable[..., Backend]]) -> None:
        self.name = name
        self._load = load
        self._lock = threading.Lock()
        self._class: Callable[..., Backend] | None = None
        self.error: str | None = None
        """Why it can't be imported, once that is known."""

    @classmethod
    def of(cls, model_class: Callable[..., Backend]) -> ModelClass:
        """A class that is imported already."""
        made = cls(model_class.__name__, lambda: model_class)
        made._class = model_class
        return made

    @classmethod
    def named(cls, name: str) -> ModelClass:
        """The class `module:Class`. If no such module is installed, it may be in the current folder.

        Raises ModelClassError for a name of another form, or of a module that isn't there.
        """
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            raise ModelClassError(f'MODEL_CLASS (--model) should look like module:Class, not "{name}"')
        module, _, class_name = name.partition(":")
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            sys.path.append(str(Path.cwd()))  # at the end of the path, so that it hides no other module
            if importlib.util.find_spec(package) is None:
                where = f"installed, or in {Path.cwd()}"
                raise ModelClassError(f"MODEL_CLASS (--model) {name}: no module {module} is {where}")
        return cls(class_name, lambda: _import(module, class_name))

    def load(self, timeout_s: float | None = None) -> Callable[..., Backend]:
        """The class. If another thread is importing it, waits for that.

        Raises ModelClassError if it can't be imported, which isn't tried again, and ModelClassLoadingError if that
        takes longer than `timeout_s`.
        """
        if not self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise ModelClassLoadingError(f"The class {self.name} is being imported")
        try:
            if self._class is None and self.error is None:
                self._class = self._try()
            if self._class is None:
                raise ModelClassError(self.error)  # a new one each time, because a traceback grows with each raise
            return self._class
        finally:
            self._lock.release()

    @property
    def loaded(self) -> Callable[..., Backend] | None:
        """The class, or None while it isn't imported. Raises ModelClassError if it can't be."""
        if self.error is not None:
            raise ModelClassError(self.error)
        return self._class

    def _try(self) -> Callable[..., Backend] | None:
        try:
            return self._load()
        except (Exception, SystemExit) as error:
            log.exception("The class %s can't be imported", self.name)  # first, as the text below sends people to it
            # What its code says may hold secrets, and /health is open to everyone.
            self.error = f"The class {self.name} can't be imported ({type(error).__name__}): see the backend's log"
            return None


def _import(module: str, class_name: str) -> Callable[..., Backend]:
    loaded: Callable[..., Backend] = getattr(importlib.import_module(module), class_name)
    return loaded
