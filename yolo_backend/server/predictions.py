"""`/predict`: a body of tasks to an answer of predictions, while there is memory for it, and not too many wait."""

from __future__ import annotations

import logging
from typing import Any

from flask import Response, request
from werkzeug.exceptions import HTTPException

from yolo_backend import metrics
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.protocol import to_json
from yolo_backend.server.admission import Admission
from yolo_backend.server.bodies import Body, NoRoomError, cost_of, json_object, read_body
from yolo_backend.server.callers import client_has_gone
from yolo_backend.server.errors import BadRequestError
from yolo_backend.server.fields import PredictRequest
from yolo_backend.server.model_class import ModelClass, ModelClassLoadingError
from yolo_backend.server.task_count import count_tasks
from yolo_backend.serving.held import Share
from yolo_backend.serving.request import Predictor, not_ready, nothing
from yolo_backend.settings import BODY_COSTS

log = logging.getLogger(__name__)


class Predictions:
    """Answers requests for predictions by the class that serves."""

    def __init__(self, model_class: ModelClass, predictor: Predictor) -> None:
        self._model_class = model_class
        self._predictor = predictor
        self._admission = Admission(predictor.settings.threads)

    def answer(self) -> Response:
        """The answer to the request at hand. Raises BadRequestError, LabelingConfigError, HTTPException."""
        with Share(self._predictor.held) as share:
            try:
                content = read_body(share)
            except NoRoomError as error:
                return _answer_without_room(error.body)
            body = json_object(content)
            length = len(content)
            del content
            share.give_back(BODY_COSTS * length - cost_of(body, length))
            return self._answer(PredictRequest.of(body))

    def _answer(self, asked: PredictRequest) -> Response:
        parse_labeling_config(asked.label_config)  # before the model class gets a text that may not be XML
        with self._admission.take(len(asked.tasks)) as admitted:
            if admitted:
                results = self._ask_class(asked)
            else:
                results = not_ready(asked.tasks, asked.context, "too many requests wait already (THREADS)")
        return Response(to_json({"results": results}), mimetype="application/json")

    def _ask_class(self, asked: PredictRequest) -> Any:
        try:
            backend_class = self._model_class.load(self._predictor.settings.predict_deadline_s or None)
        except ModelClassLoadingError as error:
            return not_ready(asked.tasks, asked.context, str(error))
        backend = backend_class(project_id=asked.project, label_config=asked.label_config)
        return backend.predict(asked.tasks, context=asked.context, is_abandoned=client_has_gone(request.environ))


def _answer_without_room(body: Body) -> Response:
    """The answer for a body that isn't kept: `[]` for each task."""
    try:
        count, has_context = count_tasks(body)
    except HTTPException:
        raise
    except Exception:
        raise BadRequestError("The body is not JSON") from None
    if not count:
        raise BadRequestError('"tasks" should be a list of at least one task')
    log.warning("%d tasks are not predicted: too much memory is held already (MAX_HELD_MEGABYTES)", count)
    metrics.TASKS.labels("not ready").inc(count)
    entry = to_json(nothing({"": ""} if has_context else None))
    results = b",".join([entry] * count)  # the same object many times
    return Response(b'{"results":[' + results + b"]}", mimetype="application/json")
