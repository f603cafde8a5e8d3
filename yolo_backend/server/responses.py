"""Makes answers of errors: one table of statuses, and the message as the reason phrase."""

from __future__ import annotations

import logging

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.messages import to_latin1
from yolo_backend.server.errors import BadRequestError, StoppingError
from yolo_backend.server.model_class import ModelClassError

log = logging.getLogger(__name__)

_MAX_REASON = 240
# In Settings > Model, a person reads only the reason phrase, so every status has its message there.
_STATUS_OF_ERROR: dict[type[Exception], int] = {
    BadRequestError: 400,
    LabelingConfigError: 422,
    WeightsError: 422,
    ModelClassError: 500,
    StudioError: 424,
    WeightsLoadingError: 503,
    StoppingError: 503,
}


def answer_error(error: Exception) -> Response:
    """The answer to a request that failed. An error that isn't in the table is logged, and not told."""
    if isinstance(error, HTTPException):
        return error_response(error.code or 500, error.description or error.name)
    for kind, status in _STATUS_OF_ERROR.items():
        if isinstance(error, kind):
            log.warning("%s: %s", request.path, error)
            return error_response(status, str(error))
    log.error("%s failed", request.path, exc_info=error)
    return error_response(500, "Internal error: the backend's log says more")


def error_response(status: int, message: str) -> Response:
    """An answer with this status, whose reason phrase and JSON are the message."""
    response = jsonify(error=message)
    line = to_latin1(message)
    shown = line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 3] + "..."
    response.status = f"{status} {shown}"
    return response
