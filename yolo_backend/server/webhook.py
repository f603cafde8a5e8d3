"""`/webhook`: brings events to the class's `fit`, if it has one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from flask import Response, jsonify

from yolo_backend.fit_hook import START_TRAINING, trains, trains_at
from yolo_backend.server.fields import text
from yolo_backend.server.fitting import FitRunner, why_ignored
from yolo_backend.server.model_class import Backend, ModelClass, ModelClassError
from yolo_backend.server.responses import error_response
from yolo_backend.server.status import TrainingStatus


class Webhook:
    """Takes events, and tells what became of them."""

    def __init__(self, model_class: ModelClass, *, training_is_on: bool = False) -> None:
        self._model_class = model_class
        self._training_is_on = training_is_on
        self._fits = FitRunner(model_class.load, training_is_on=training_is_on)

    def take(self, body: dict[str, Any]) -> Response:
        """The answer to an event. `fit` gets the event afterwards. Raises BadRequestError, ModelClassError."""
        event = text(body, "action")
        try:
            backend_class = self._model_class.loaded
        except ModelClassError as error:
            if event == START_TRAINING:
                raise
            return jsonify(status="ignored", reason=str(error))
        # Otherwise, the thread that waits for the class finds out.
        if backend_class is None or self._trains_at(backend_class, event):
            self._fits.start(event, body)
            return jsonify(status="accepted")
        reason = why_ignored(self._model_class.name)
        self._fits.ignore(event, body, reason)
        return error_response(409, reason) if event == START_TRAINING else jsonify(status="ignored", reason=reason)

    def training(self) -> TrainingStatus:
        """What became of the events, for the page."""
        told = self._fits.told()
        with contextlib.suppress(ModelClassError):
            if backend_class := self._model_class.loaded:
                has_own = trains(backend_class)
                if self._training_is_on and not has_own:  # then `fit` only asks, and its end is that of no training
                    told = [each for each in told if each.state in {"failed", "dropped"}]
                return TrainingStatus(told, has_own or self._trains_at(backend_class, START_TRAINING))
        return TrainingStatus(told)

    def _trains_at(self, backend_class: Callable[..., Backend], event: str) -> bool:
        return trains_at(backend_class, event, training_is_on=self._training_is_on)
