"""The class is imported and the default weights are read in the background, in the process that serves."""

from __future__ import annotations

import contextlib
import threading

from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.errors import UserError
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import Predictor


class Loading:
    """Imports the class and reads the default weights in the background, once: `/setup` soon knows their classes.

    Begin it in the process that serves, because neither a model nor its threads survive a fork.
    """

    def __init__(self, model_class: ModelClass, predictor: Predictor) -> None:
        self._model_class = model_class
        self._predictor = predictor
        self._lock = threading.Lock()
        self._has_begun = False

    def begin(self) -> None:
        """Start the thread that loads, unless it was started before."""
        with self._lock:
            if not self._has_begun:
                threading.Thread(target=self._load, name="load", daemon=True).start()
                self._has_begun = True

    def _load(self) -> None:
        # Errors are logged where they happen, and /health tells them.
        for name in self._predictor.settings.model_names:
            with contextlib.suppress(UserError, WeightsLoadingError):
                self._predictor.catalog.info(name)
        with contextlib.suppress(UserError):
            self._model_class.load()
