"""Label Studio's ML protocol over HTTP: routes, login, limits, errors, metrics."""

from __future__ import annotations

import contextlib
import hmac
import io
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from werkzeug.exceptions import Forbidden, HTTPException

from yolo_backend import __version__, metrics
from yolo_backend.detection.batching import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError
from yolo_backend.errors import UserError
from yolo_backend.fitting import START_TRAINING, FitRunner, trains, why_ignored
from yolo_backend.labeling import LabelingConfigError, parse_labeling_config
from yolo_backend.messages import to_latin1
from yolo_backend.model_class import ModelClass, ModelClassError, ModelClassLoadingError
from yolo_backend.plans import ProjectPlan
from yolo_backend.prediction import Predictor, not_ready
from yolo_backend.protocol import from_json, project_id_of, to_json
from yolo_backend.settings import Settings
from yolo_backend.status import (
    PAGE_HEADERS,
    ModelStatus,
    ProjectStatus,
    Status,
    TrainingStatus,
    as_json,
    render_page,
    wants_page,
)
from yolo_backend.studio import StudioError

log = logging.getLogger(__name__)

_MAX_REASON = 240
_MAX_PROJECTS = 200
_MAX_KEPT_TEXT = 4000
_PIECE_BYTES = 1 << 18
_STOPPING = "The backend is stopping: try again when it is back"
# Of gunicorn's threads, some are never spent on waiting predictions: for /health and /setup, and for a lone person.
_THREADS_FOR_OTHERS = 2
_THREADS_FOR_A_PERSON = 1


class BadRequestError(ValueError):
    """A body that isn't what the protocol says."""


class StoppingError(Exception):
    """The process was told to end."""


# What a person reads in Settings > Model is the reason phrase alone, so every status brings its message there.
_STATUS_OF_ERROR: dict[type[Exception], int] = {
    BadRequestError: 400,
    LabelingConfigError: 422,
    WeightsError: 422,
    ModelClassError: 500,
    StudioError: 424,
    WeightsLoadingError: 503,
    StoppingError: 503,
}


def create_app(model_class: ModelClass, predictor: Predictor) -> Flask:
    """The WSGI application; starts to import the class and to read the weights in the background."""
    settings = predictor.settings
    app = Flask(__name__)
    app.extensions["predictor"] = predictor
    app.config["MAX_CONTENT_LENGTH"] = int(settings.max_request_megabytes * 1e6)
    routes = _Routes(model_class, predictor)
    app.before_request(lambda: _check_login(settings))
    app.before_request(_check_origin)
    app.before_request(lambda: _check_running(predictor))
    app.after_request(_finish)
    app.register_error_handler(Exception, _answer_error)
    app.get("/health")(routes.health)
    app.get("/")(routes.index)
    app.post("/setup")(routes.setup)
    app.post("/predict")(routes.predict)
    app.post("/webhook")(routes.webhook)
    app.get("/versions")(routes.versions)
    app.get("/metrics")(routes.metrics)
    _start_loading(model_class, predictor)
    return app


class _Routes:
    """One method for each call that Label Studio, or its operator, makes."""

    def __init__(self, model_class: ModelClass, predictor: Predictor) -> None:
        self._model_class = model_class
        self._predictor = predictor
        self._places = _Places(predictor.settings.threads)
        self._fits = FitRunner(model_class.load)
        self._projects: dict[str, ProjectStatus] = {}
        self._projects_lock = threading.Lock()
        self._started_at = time.time()

    def health(self) -> Response:
        model = self._model()
        return _error(503, model.reason) if model.reason else jsonify(status="UP", model_class=self._model_class.name)

    def index(self) -> Response:
        predictor = self._predictor
        status = Status(
            model_class=self._model_class.name,
            version=__version__,
            model=self._model(),
            started_at=self._started_at,
            projects=self._latest_projects(),
            work=predictor.progress(),
            failures=predictor.failures.last(),
            training=self._training(),
            workers=predictor.settings.workers,
        )
        if wants_page(request.headers.get("Accept")):
            page = render_page(status, refreshes="paused" not in request.args)
            return Response(page, mimetype="text/html")
        return jsonify(as_json(status))

    def _latest_projects(self) -> list[ProjectStatus]:
        with self._projects_lock:
            return list(reversed(self._projects.values()))

    def _model(self) -> ModelStatus:
        """The default weights, and why they can't be had or used; no reason while they are read."""
        name, pool = self._predictor.settings.model_name, self._predictor.pool
        weights, reason = None, self._model_class.error or pool.down_reason(name)
        try:
            weights = pool.info(name)
        except WeightsLoadingError:
            pass
        except WeightsError as error:
            reason = reason or str(error)
        if self._predictor.is_draining:
            return ModelStatus(name, "STOPPING", weights, _STOPPING)
        if reason:
            return ModelStatus(name, "DOWN", weights, reason)
        return ModelStatus(name, "UP" if weights else "LOADING", weights)

    def setup(self) -> Response:
        body = _json_body()
        label_config = _text(body, "schema")
        project = _short(body, "project")
        studios = self._predictor.studios
        studios.introduce(project, _short(body, "hostname"), _short(body, "access_token"))
        try:
            plan = self._predictor.plan(label_config)
            studios.check(project)
        except UserError as error:
            # In Settings > Model it stands cut short, and not with all letters.
            self._keep(project, ProjectStatus(project_id_of(project), None, time.time(), str(error)))
            raise
        _log_what_is_left_out(project, plan)
        self._keep(project, ProjectStatus(project_id_of(project), plan, time.time()))
        return jsonify(model_version=plan.model_version)

    def _keep(self, project: str, status: ProjectStatus) -> None:
        with self._projects_lock:
            self._projects.pop(project, None)
            self._projects[project] = status
            if len(self._projects) > _MAX_PROJECTS:
                del self._projects[next(iter(self._projects))]

    def predict(self) -> Response:
        body = _json_body()
        tasks = _tasks(body)
        project = _short(body, "project")
        label_config = _text(body, "label_config")
        context = _context(body)
        parse_labeling_config(label_config)  # before the model class meets what may not be XML
        with self._places.take(len(tasks)) as admitted:
            if admitted:
                results = self._predict(tasks, project, label_config, context)
            else:
                results = not_ready(tasks, context, "too many requests wait already (THREADS)")
        return Response(to_json({"results": results}), mimetype="application/json")

    def _predict(self, tasks: list[Any], project: str, label_config: str, context: dict[str, Any] | None) -> Any:
        try:
            backend_class = self._model_class.load(self._predictor.settings.predict_deadline_s or None)
        except ModelClassLoadingError as error:
            return not_ready(tasks, context, str(error))
        backend = backend_class(project_id=project, label_config=label_config)
        return backend.predict(tasks, context=context, is_abandoned=_client_has_gone(request.environ))

    def webhook(self) -> Response:
        body = _json_body()
        event = _text(body, "action")
        try:
            backend_class = self._model_class.loaded
        except ModelClassError as error:
            if event == START_TRAINING:
                raise
            return jsonify(status="ignored", reason=str(error))
        if backend_class is None or trains(backend_class):  # else who waits for the class finds out
            self._fits.start(event, body)
            return jsonify(status="accepted")
        reason = why_ignored(self._model_class.name)
        self._fits.ignore(event, body, reason)
        return _error(409, reason) if event == START_TRAINING else jsonify(status="ignored", reason=reason)

    def _training(self) -> TrainingStatus:
        with contextlib.suppress(ModelClassError):
            if backend_class := self._model_class.loaded:
                return TrainingStatus(self._fits.told(), trains(backend_class))
        return TrainingStatus(self._fits.told())

    def versions(self) -> Response:
        versions = [project.plan.model_version for project in self._latest_projects() if project.plan]
        return jsonify(versions=list(dict.fromkeys(versions)))

    def metrics(self) -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _start_loading(model_class: ModelClass, predictor: Predictor) -> None:
    """Import the class and read the default weights in the background, so that `/setup` soon knows their classes."""

    def load() -> None:
        with contextlib.suppress(UserError):  # logged where it was met, and /health tells it
            model_class.load()
            predictor.pool.wait_for_info(predictor.settings.model_name, timeout_s=None)

    threading.Thread(target=load, name="load", daemon=True).start()


class _Places:
    """How many requests may wait for predictions at once."""

    def __init__(self, threads: int) -> None:
        self._all = threading.BoundedSemaphore(threads - _THREADS_FOR_OTHERS)
        self._bulk = threading.BoundedSemaphore(threads - _THREADS_FOR_OTHERS - _THREADS_FOR_A_PERSON)

    @contextmanager
    def take(self, task_count: int) -> Iterator[bool]:
        """Take a place for a request, or tell that there is none; a one-task request may take the last one."""
        semaphores = [self._all] if task_count == 1 else [self._bulk, self._all]
        taken = []
        try:
            for semaphore in semaphores:
                if not semaphore.acquire(blocking=False):
                    break
                taken.append(semaphore)
            yield len(taken) == len(semaphores)
        finally:
            for semaphore in taken:
                semaphore.release()


def _check_login(settings: Settings) -> Response | None:
    if not settings.basic_auth_user or not settings.basic_auth_pass:
        return None
    given = request.authorization
    if given is None and "Authorization" not in request.headers and request.path == "/health":
        return None
    user, password = (given.username or "", given.password or "") if given and given.type == "basic" else ("", "")
    user_is_right = hmac.compare_digest(user.encode(), settings.basic_auth_user.encode())
    password_is_right = hmac.compare_digest(password.encode(), settings.basic_auth_pass.get_secret_value().encode())
    if user_is_right and password_is_right:
        return None
    response = _error(401, "The login is missing or wrong: give BASIC_AUTH_USER and BASIC_AUTH_PASS")
    response.headers["WWW-Authenticate"] = 'Basic realm="YOLO backend"'
    return response


def _check_origin() -> None:
    """Any web page can make its visitor's browser post here; Label Studio's own posts come from no page."""
    if request.method == "POST" and ("Origin" in request.headers or "Sec-Fetch-Site" in request.headers):
        raise Forbidden("Posts from web pages are not served")


def _check_running(predictor: Predictor) -> None:
    if predictor.is_draining and request.method == "POST":
        raise StoppingError(_STOPPING)


def _client_has_gone(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """Says whether the connection of this request was closed at the other end."""
    connection = environ.get("gunicorn.socket", environ.get("werkzeug.socket"))

    def has_gone() -> bool:
        if (
            not isinstance(connection, socket.socket)
            or isinstance(connection, ssl.SSLSocket)
            or sys.platform == "win32"
        ):
            return False  # can't be told without reading from it
        try:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    return has_gone


def _json_body() -> dict[str, Any]:
    try:
        body = from_json(_read_body())  # it may be large, and waits for its answer
    except HTTPException:
        raise
    except Exception:  # brackets in brackets in brackets, or chunks that gunicorn can't read
        body = None
    if body is None:
        raise BadRequestError("The body is not JSON")
    if not isinstance(body, dict):
        raise BadRequestError("The body should be a JSON object")
    return body


def _read_body() -> bytes:
    """The whole body. Request.get_data reads small pieces, and gunicorn moves all it has for each of them."""
    body = io.BytesIO()
    while piece := request.stream.read(_PIECE_BYTES):
        body.write(piece)
    return body.getvalue()


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f'The body has no "{key}"')
    return value


def _short(body: dict[str, Any], key: str) -> str:
    """A text that is kept, or "" where there is none."""
    value = str(body.get(key) or "")
    if len(value) > _MAX_KEPT_TEXT:
        raise BadRequestError(f'"{key}" is longer than {_MAX_KEPT_TEXT} characters')
    return value


def _tasks(body: dict[str, Any]) -> list[dict[str, Any]]:
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise BadRequestError('"tasks" should be a list of at least one task')
    if not all(isinstance(task, dict) for task in tasks):
        raise BadRequestError('Each of the "tasks" should be an object')
    return tasks


def _context(body: dict[str, Any]) -> dict[str, Any] | None:
    params = body.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    if context is not None and not isinstance(context, dict):
        raise BadRequestError('"params.context" should be an object')
    return context


def _log_what_is_left_out(project: str, plan: ProjectPlan) -> None:
    for sentence in plan.not_served:
        log.info("Project %s: %s", project, sentence)
    for served in plan.controls:
        if served.label_map.labels_without_class:
            log.info(
                "Project %s, %s: no class of %s for the labels %s; classes without a label: %s",
                project,
                served.control.from_name,
                served.weights_name,
                ", ".join(served.label_map.labels_without_class),
                ", ".join(served.label_map.classes_without_label) or "none",
            )


def _finish(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "unknown"
    metrics.REQUESTS.labels(route, str(response.status_code)).inc()
    response.headers.update(PAGE_HEADERS)
    return response


def _answer_error(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _error(error.code or 500, error.description or error.name)
    for kind, status in _STATUS_OF_ERROR.items():
        if isinstance(error, kind):
            log.warning("%s: %s", request.path, error)
            return _error(status, str(error))
    log.error("%s failed", request.path, exc_info=error)
    return _error(500, "Internal error: the backend's log says more")


def _error(status: int, message: str) -> Response:
    response = jsonify(error=message)
    line = to_latin1(message)
    shown = line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 3] + "..."
    response.status = f"{status} {shown}"
    return response
