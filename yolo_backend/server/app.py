"""Label Studio's ML protocol over HTTP: the routes, and what is done around each request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from flask import Flask, Response, g, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from yolo_backend import __version__, metrics, request_ids
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError
from yolo_backend.errors import UserError
from yolo_backend.images.uploads import FolderOfUploads
from yolo_backend.server.bodies import MAX_SMALL_BODY_BYTES, json_object, read_body
from yolo_backend.server.callers import check_login, check_origin
from yolo_backend.server.errors import StoppingError
from yolo_backend.server.fields import short_text, text
from yolo_backend.server.loading import Loading
from yolo_backend.server.model_class import ModelClass
from yolo_backend.server.predictions import Predictions
from yolo_backend.server.projects import ConnectedProjects
from yolo_backend.server.responses import answer_error, error_response
from yolo_backend.server.status import PAGE_HEADERS, ModelStatus, Status, as_json, render_page, wants_page
from yolo_backend.server.titles import ProjectTitles
from yolo_backend.server.webhook import Webhook
from yolo_backend.serving.command_work import work_of_commands
from yolo_backend.serving.held import Share
from yolo_backend.serving.request import Predictor
from yolo_backend.training.trainings import Trainings, trainings_of

_STOPPING = "The backend is stopping: try again when it is back"


def create_app(model_class: ModelClass, predictor: Predictor, trainings: Trainings | None = None) -> Flask:
    """The WSGI application; its first request begins to load class and weights, where `begin_loading` hasn't before.

    `trainings` are what Start Training begins, where TRAINING is on and the class has no `fit` of its own.
    """
    settings = predictor.settings
    app = Flask(__name__)
    app.extensions["predictor"] = predictor
    loading = Loading(model_class, predictor)

    def begin_loading() -> None:
        loading.begin()
        if trainings:
            trainings.begin()

    app.extensions["begin_loading"] = begin_loading
    metrics.QUEUE_TASKS.set_function(lambda: predictor.waiting()[0])
    metrics.QUEUE_AGE_SECONDS.set_function(lambda: predictor.waiting()[1])
    metrics.HELD_BYTES.set_function(lambda: predictor.held.held_bytes)
    app.config["MAX_CONTENT_LENGTH"] = int(settings.max_request_megabytes * 1e6)
    routes = _Routes(model_class, predictor, trainings)
    app.before_request(_begin)
    app.before_request(begin_loading)
    app.before_request(lambda: check_login(settings))
    app.before_request(check_origin)
    app.before_request(lambda: _check_running(predictor))
    app.after_request(_finish)
    app.register_error_handler(Exception, answer_error)
    app.get("/health")(routes.health)
    app.get("/")(routes.index)
    app.post("/setup")(routes.setup)
    app.post("/predict")(routes.predict)
    app.post("/webhook")(routes.webhook)
    app.get("/versions")(routes.versions)
    app.get("/metrics")(routes.metrics)
    return app


class _Routes:
    """One method for each call that Label Studio, or its operator, makes."""

    def __init__(self, model_class: ModelClass, predictor: Predictor, trainings: Trainings | None) -> None:
        self._model_class = model_class
        self._predictor = predictor
        self._predictions = Predictions(model_class, predictor)
        self._trainings = trainings
        self._webhook = Webhook(model_class, training_is_on=trainings is not None)
        media_root = predictor.settings.label_studio_media_root
        self._uploads = FolderOfUploads(media_root) if media_root else None
        self._projects = ConnectedProjects()
        self._titles = ProjectTitles(predictor.studios.of_project)
        self._started_at = time.time()

    def health(self) -> Response:
        model = self._model()
        if model.state == "UP":
            return jsonify(status="UP", model_class=self._model_class.name)
        return error_response(503, model.reason or f"Loading {model.name}, try again")

    def index(self) -> Response:
        predictor = self._predictor
        projects, work = self._projects.newest_first(), predictor.progress()
        commands = work_of_commands(predictor.settings.model_dir)
        trainings = trainings_of(predictor.settings.model_dir)  # also those of the command
        seen = [
            *(item.sent_as for item in projects),  # first, because that says which Label Studio it is
            *(item.project for item in work),
            *(item.project for item in commands),
            *(item.project_id for item in trainings),
        ]
        status = Status(
            model_class=self._model_class.name,
            version=__version__,
            model=self._model(),
            started_at=self._started_at,
            projects=projects,
            titles=self._titles.of(seen),
            work=work,
            commands=commands,
            failures=predictor.failures.last(),
            remarks=predictor.remarks.last(),
            training=self._webhook.training(),
            workers=predictor.settings.workers,
            runtimes=predictor.catalog.pool.runtimes(),
            refused=predictor.catalog.refused(),
            uploads=self._uploads.trouble() if self._uploads else None,  # it may be mended meanwhile
            training_is_on=self._trainings is not None,
            trainings=trainings,
        )
        if wants_page(request.headers.get("Accept")):
            page = render_page(status, refreshes="paused" not in request.args)
            return Response(page, mimetype="text/html")
        return jsonify(as_json(status))

    def _model(self) -> ModelStatus:
        """The default weights, and why they can't be had or used; no reason while they are read."""
        catalog, names = self._predictor.catalog, self._predictor.settings.model_names
        found: dict[str, WeightsInfo | None] = dict.fromkeys(names)
        reason = self._model_class.error
        for name in names:
            reason = reason or catalog.down_reason(name)
            try:
                found[name] = catalog.info(name)
            except WeightsLoadingError:
                pass
            except WeightsError as error:
                reason = reason or str(error)
        (name, weights), *others = found.items()
        status = partial(ModelStatus, name, weights=weights, others=dict(others))
        if self._predictor.is_draining:
            return status("STOPPING", reason=_STOPPING)
        if reason:
            return status("DOWN", reason=reason)
        missing = next((each for each, info in found.items() if info is None), None)
        if missing and missing != name:
            return status("LOADING", reason=f"Loading {missing}, try again")
        return status("LOADING" if missing else "UP")

    def setup(self) -> Response:
        with self._small_body() as body:
            return self._set_up(body)

    def _set_up(self, body: dict[str, Any]) -> Response:
        label_config = text(body, "schema")
        project = short_text(body, "project")
        studios = self._predictor.studios
        studios.introduce(project, short_text(body, "hostname"), short_text(body, "access_token"))
        try:
            plan = self._predictor.plan(label_config, project=project)
            studios.check(project)
        except UserError as error:
            self._projects.refused(project, str(error))
            raise
        self._projects.connected(project, plan)
        return jsonify(model_version=plan.model_version)

    @contextmanager
    def _small_body(self) -> Iterator[dict[str, Any]]:
        """A body that is never very large, which finds room in any case, and is counted."""
        with Share(self._predictor.held) as share:
            yield json_object(read_body(share, MAX_SMALL_BODY_BYTES))

    def predict(self) -> Response:
        return self._predictions.answer()

    def webhook(self) -> Response:
        with self._small_body() as body:
            return self._webhook.take(body)

    def versions(self) -> Response:
        versions = [project.plan.model_version for project in self._projects.newest_first() if project.plan]
        return jsonify(versions=list(dict.fromkeys(versions)))

    def metrics(self) -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _begin() -> None:
    g.began_at = time.monotonic()
    g.request_id = request_ids.begin(request.headers.get(request_ids.HEADER))


def _check_running(predictor: Predictor) -> None:
    if predictor.is_draining and request.method == "POST":
        raise StoppingError(_STOPPING)


def _finish(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "unknown"
    metrics.REQUESTS.labels(route, str(response.status_code)).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(time.monotonic() - g.began_at)
    response.headers.update(PAGE_HEADERS)
    response.headers[request_ids.HEADER] = g.request_id
    response.call_on_close(request_ids.end)  # and not before, for Flask's own server writes its line in between
    return response
