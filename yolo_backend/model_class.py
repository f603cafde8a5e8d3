"""The class that serves, by its name: it is imported behind the open port, for label-studio-ml brings torch along."""

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
from yolo_backend.fitting import Fitting
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

OWN = "yolo_backend.model:YoloBackend"


class ModelClassError(UserError):
    """A class that can't be served."""


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
        self._error: ModelClassError | None = None

    @classmethod
    def of(cls, model_class: Callable[..., Backend]) -> ModelClass:
        """A class that is imported already."""
        return cls(model_class.__name__, lambda: model_class)

    @classmethod
    def named(cls, name: str = OWN) -> ModelClass:
        """The class `module:Class`; where no such module is installed, the module may be in the current folder.

        Raises ModelClassError for a name of another form, or of a module that isn't there.
        """
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            raise ModelClassError(f'--model should look like module:Class, not "{name}"')
        module, _, class_name = name.partition(":")
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            sys.path.append(str(Path.cwd()))  # asked for by this name, and at the end: it hides no other module
            if importlib.util.find_spec(package) is None:
                raise ModelClassError(f"--model {name}: no module {module} is installed, or in {Path.cwd()}")
        return cls(class_name, lambda: _import(module, class_name))

    def load(self) -> Callable[..., Backend]:
        """The class. Raises ModelClassError where it can't be imported, which isn't tried again."""
        with self._lock:
            if self._error:
                raise self._error
            if self._class is None:
                try:
                    self._class = self._load()
                except Exception as error:
                    why = f"{type(error).__name__}: {first_line(error)}"
                    self._error = ModelClassError(f"The class {self.name} can't be imported: {why}")
                    log.exception("%s", self._error)
                    raise self._error from error
            return self._class

    @property
    def error(self) -> str | None:
        """Why it can't be imported, once that is known."""
        return str(self._error) if self._error else None


def _import(module: str, class_name: str) -> Callable[..., Backend]:
    loaded: Callable[..., Backend] = getattr(importlib.import_module(module), class_name)
    return loaded
