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

from flask import Flask, Response, g, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from werkzeug.exceptions import Forbidden, HTTPException, RequestEntityTooLarge

from yolo_backend import __version__, metrics, request_ids
from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError
from yolo_backend.errors import UserError
from yolo_backend.images.uploads import FolderOfUploads
from yolo_backend.label_studio.studio import StudioError
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.messages import to_latin1
from yolo_backend.protocol import from_json, project_id_of, to_json
from yolo_backend.server.fitting import START_TRAINING, FitRunner, trains, why_ignored
from yolo_backend.server.model_class import ModelClass, ModelClassError, ModelClassLoadingError
from yolo_backend.server.status import (
    PAGE_HEADERS,
    ModelStatus,
    ProjectStatus,
    Status,
    TrainingStatus,
    as_json,
    render_page,
    wants_page,
)
from yolo_backend.server.task_count import count_tasks
from yolo_backend.serving.held import Share
from yolo_backend.serving.request import Predictor, not_ready, nothing
from yolo_backend.settings import BODY_COSTS, Settings

log = logging.getLogger(__name__)

_MAX_REASON = 240
_MAX_PROJECTS = 200
_MAX_KEPT_TEXT = 4000
_PIECE_BYTES = 1 << 18
_WAIT_FOR_ROOM_S = 2.0
_FEW_BYTES = 1_000_000
_MAX_SMALL_BODY_BYTES = 16_000_000  # of a labeling config, or an event
_LONG_TEXT = 1000
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
    """The WSGI application; its first request begins to load class and weights, where `begin_loading` hasn't before."""
    settings = predictor.settings
    app = Flask(__name__)
    app.extensions["predictor"] = predictor
    app.extensions["begin_loading"] = begin_loading = _Loading(model_class, predictor).begin
    metrics.QUEUE_TASKS.set_function(lambda: predictor.waiting()[0])
    metrics.QUEUE_AGE_SECONDS.set_function(lambda: predictor.waiting()[1])
    metrics.HELD_BYTES.set_function(lambda: predictor.held.held_bytes)
    app.config["MAX_CONTENT_LENGTH"] = int(settings.max_request_megabytes * 1e6)
    routes = _Routes(model_class, predictor)
    app.before_request(_begin)
    app.before_request(begin_loading)
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
    return app


class _Routes:
    """One method for each call that Label Studio, or its operator, makes."""

    def __init__(self, model_class: ModelClass, predictor: Predictor) -> None:
        self._model_class = model_class
        self._predictor = predictor
        self._places = _Places(predictor.settings.threads)
        self._fits = FitRunner(model_class.load)
        media_root = predictor.settings.label_studio_media_root
        self._uploads = FolderOfUploads(media_root) if media_root else None
        self._projects: dict[str, ProjectStatus] = {}
        self._projects_lock = threading.Lock()
        self._started_at = time.time()

    def health(self) -> Response:
        model = self._model()
        if model.state == "UP":
            return jsonify(status="UP", model_class=self._model_class.name)
        return _error(503, model.reason or f"Loading {model.name}, try again")

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
            runtimes=predictor.catalog.pool.runtimes(),
            refused=predictor.catalog.refused(),
            uploads=self._uploads.trouble() if self._uploads else None,  # it may be mended meanwhile
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
        name, catalog = self._predictor.settings.model_name, self._predictor.catalog
        weights, reason = None, self._model_class.error or catalog.down_reason(name)
        try:
            weights = catalog.info(name)
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
        with self._small_body() as body:
            return self._set_up(body)

    def _set_up(self, body: dict[str, Any]) -> Response:
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

    @contextmanager
    def _small_body(self) -> Iterator[dict[str, Any]]:
        """A body that is never very large, which finds room in any case, and is counted."""
        with Share(self._predictor.held) as share:
            yield _json_object(_read_body(share, _MAX_SMALL_BODY_BYTES))

    def _keep(self, project: str, status: ProjectStatus) -> None:
        with self._projects_lock:
            self._projects.pop(project, None)
            self._projects[project] = status
            if len(self._projects) > _MAX_PROJECTS:
                del self._projects[next(iter(self._projects))]

    def predict(self) -> Response:
        with Share(self._predictor.held) as share:
            try:
                content = _read_body(share)
            except _NoRoomError as error:
                return _answer_without_room(error.body)
            body = _json_object(content)
            length = len(content)
            del content
            share.give_back(BODY_COSTS * length - _cost_of(body, length))
            return self._predict_body(body)

    def _predict_body(self, body: dict[str, Any]) -> Response:
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
        with self._small_body() as body:
            return self._take_event(body)

    def _take_event(self, body: dict[str, Any]) -> Response:
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


class _Loading:
    """Imports the class and reads the default weights in the background, once: `/setup` soon knows their classes.

    To be begun in the process that serves, for neither a model nor its threads survive the fork of a server's workers.
    """

    def __init__(self, model_class: ModelClass, predictor: Predictor) -> None:
        self._model_class = model_class
        self._predictor = predictor
        self._lock = threading.Lock()
        self._has_begun = False

    def begin(self) -> None:
        with self._lock:
            if not self._has_begun:
                threading.Thread(target=self._load, name="load", daemon=True).start()
                self._has_begun = True

    def _load(self) -> None:
        # What goes wrong is logged where it is met, and /health tells it.
        with contextlib.suppress(UserError, WeightsLoadingError):
            self._predictor.catalog.info(self._predictor.settings.model_name)
        with contextlib.suppress(UserError):
            self._model_class.load()


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


def _begin() -> None:
    g.began_at = time.monotonic()
    g.request_id = request_ids.begin(request.headers.get(request_ids.HEADER))


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


class _Body:
    """A body that is read on, after the pieces that were read already."""

    def __init__(self, start: bytes) -> None:
        self._start = io.BytesIO(start)

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes at most, b"" at the end."""
        if size == 0:  # as ijson asks, to see whether it gets bytes
            return b""
        return self._start.read(size) or request.stream.read(size)


class _NoRoomError(Exception):
    """There is no memory for a body now."""

    def __init__(self, body: _Body) -> None:
        super().__init__("no room")
        self.body = body


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        body = from_json(content)  # it may be large, and waits for its answer
    except Exception:  # brackets in brackets in brackets
        body = None
    if body is None:
        raise BadRequestError("The body is not JSON")
    if not isinstance(body, dict):
        raise BadRequestError("The body should be a JSON object")
    return body


def _read_body(share: Share, limit_bytes: int | None = None) -> bytes:
    """The whole body, for which `share` takes room, in any case where it has a limit of its own.

    Raises _NoRoomError, BadRequestError, and RequestEntityTooLarge. Request.get_data reads small pieces, and gunicorn
    moves all it has for each of them.
    """
    stream = request.stream  # raises where the length is too large
    always_bytes = limit_bytes or _FEW_BYTES
    body = io.BytesIO()
    try:
        _check_length(request.content_length or 0, limit_bytes)
        while piece := stream.read(_PIECE_BYTES):
            body.write(piece)
            _check_length(body.tell(), limit_bytes)
            cost = BODY_COSTS * len(piece)  # piece by piece, for what is announced may never come
            if body.tell() <= always_bytes:
                share.count(cost)  # a person's click finds room in any case
            elif not share.take(cost, _WAIT_FOR_ROOM_S):
                raise _NoRoomError(_Body(body.getvalue()))  # noqa: TRY301  its pieces are here
    except (HTTPException, _NoRoomError):
        raise
    except Exception:  # chunks that gunicorn can't read
        raise BadRequestError("The body is not JSON") from None
    return body.getvalue()


def _check_length(length: int, limit_bytes: int | None) -> None:
    if limit_bytes and length > limit_bytes:
        raise RequestEntityTooLarge(
            f"{request.path} takes {limit_bytes / 1e6:.0f} MB at most: make the labeling config, or the annotation "
            "that is sent, smaller"
        )


def _cost_of(body: dict[str, Any], length: int) -> int:
    """About what a body of so many bytes takes as Python objects: long texts, `data:` addresses above all, once."""
    tasks = body.get("tasks")
    data = [task.get("data") for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
    texts = [text for fields in data if isinstance(fields, dict) for text in fields.values() if isinstance(text, str)]
    long = sum(len(text) for text in texts if len(text) > _LONG_TEXT)
    return BODY_COSTS * (length - long) + long if long <= length else length


def _answer_without_room(body: _Body) -> Response:
    """`[]` for each task of a body that isn't kept."""
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
    results = b",".join([entry] * count)  # the list has one object, many times
    return Response(b'{"results":[' + results + b"]}", mimetype="application/json")


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
    metrics.REQUEST_SECONDS.labels(route).observe(time.monotonic() - g.began_at)
    response.headers.update(PAGE_HEADERS)
    response.headers[request_ids.HEADER] = g.request_id
    response.call_on_close(request_ids.end)  # and not before, for Flask's own server writes its line in between
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
