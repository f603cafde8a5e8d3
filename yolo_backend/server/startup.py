"""How the server starts: flags, settings, logging, gunicorn. If it can't start, it says why in one line."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from flask import Flask

from yolo_backend.connecting.remote_backend import BackendError, BackendLoginError, RemoteBackend
from yolo_backend.detection.weights import WeightsFolder, find_weights
from yolo_backend.errors import UserError
from yolo_backend.images.uploads import FolderOfUploads
from yolo_backend.request_ids import RequestIds
from yolo_backend.server.model_class import ModelClass
from yolo_backend.settings import Settings, load_settings

log = logging.getLogger(__name__)

_OWN_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_LOG_FORMAT = "[%(asctime)s] [%(levelname)s] [%(name)s] [%(request_id)s] %(message)s"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # of glibc's malloc.h


def serve(arguments: Sequence[str]) -> None:
    """Check settings, class and weights, then serve. Exits with one line if something is wrong.

    `arguments` are the flags of Label Studio's template, and `--model`.
    """
    options = _parse_options(arguments)
    for variable, value in _environment_of(options).items():
        os.environ[variable] = value
    settings, model_class = _check_start(keeps_trying=options.keep_trying)
    if options.check:
        _check_model(model_class)
        # As a new process, because a model and its threads don't survive the fork of gunicorn's workers.
        sys.stdout.flush()
        os.execv(sys.executable, [arg for arg in sys.orig_argv if arg != "--check"])  # noqa: S606  our own command line
    host = options.host or "0.0.0.0"
    _check_port(host, settings.port)
    make_loading_app = partial(_make_loading_app, host, keeps_trying=options.keep_trying)
    if options.debug or sys.platform == "win32":  # gunicorn needs Unix
        make_loading_app().run(host=host, port=settings.port, threaded=True)
    else:
        from yolo_backend.server.gunicorn_server import Server

        Server(settings, host, make_loading_app).run()


def make_app(*, keeps_trying: bool = False) -> Flask:
    """The application, with logging set up and the weights checked; `gunicorn --preload` makes it before it forks.

    With `keeps_trying`, a release is downloaded while it serves, and tried again if that fails: /health says why.
    """
    settings, model_class = _check_start(keeps_trying=keeps_trying)
    _tune_malloc()
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLineFormatter(_LOG_FORMAT))
    handler.addFilter(RequestIds())  # on the handler, because a logger's filters don't see its children's lines
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    for noisy in ("urllib3", "httpx", "httpcore", "PIL"):  # their debug lines hold whole addresses
        logging.getLogger(noisy).setLevel(max(logging.INFO, logging.getLevelName(settings.log_level)))
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)  # and so do its warnings about odd headers
    _tell_of_uploads(settings)
    import label_studio_sdk.label_interface  # noqa: F401  a third of a second, which the first `/setup` is spared

    from yolo_backend.server.app import create_app
    from yolo_backend.serving.request import default_predictor

    if settings.training == "off":
        return create_app(model_class, default_predictor())
    from yolo_backend.training.trainings import default_trainings

    return create_app(model_class, default_predictor(), default_trainings())


def _tell_of_uploads(settings: Settings) -> None:
    if root := settings.label_studio_media_root:
        if trouble := FolderOfUploads(root).trouble():
            level = logging.WARNING if trouble.lasts else logging.INFO
            log.log(level, "%s. Meanwhile uploads are fetched from Label Studio", trouble)
        else:
            log.info("Uploads are read from %s", root)


def _make_loading_app(host: str, *, keeps_trying: bool) -> Flask:
    """The application, in the process that serves it at this host's address."""
    app = make_app(keeps_trying=keeps_trying)
    _tell_who_may_call(host)
    app.extensions["begin_loading"]()
    return app


def _tell_who_may_call(host: str) -> None:
    settings = load_settings()
    if settings.basic_auth is None and host not in _OWN_HOSTS:
        log.warning(
            "Whoever reaches port %d of this machine may ask for predictions, without a login. To change that, set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS, or start with --host 127.0.0.1 if Label Studio is on this machine",
            settings.port,
        )


def _tune_malloc() -> None:
    """Forbid glibc a heap for each thread, and returning each photograph's memory to the system.

    The heaps of many threads grow to a gigabyte together. New memory from the system has to be cleared, page by page.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another libc has no such function
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, 64 << 20)
            mallopt(_M_TRIM_THRESHOLD, 256 << 20)
            mallopt(_M_TOP_PAD, 16 << 20)


class _OneLineFormatter(logging.Formatter):
    """Makes one line of each message, so that a stranger's text, such as a project's name, can't look like two."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", super().formatMessage(record))


def _parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    program = "yolo-backend serve" if sys.argv[1:2] == ["serve"] else None
    parser = argparse.ArgumentParser(program, description="Serve YOLO predictions to Label Studio.")
    parser.add_argument("--model", metavar="MODULE:CLASS", help="the class that serves (MODEL_CLASS)")
    parser.add_argument("-p", "--port", type=int, help="port to listen on (PORT, 9090)")
    parser.add_argument("--host", help="address to listen on (0.0.0.0)")
    parser.add_argument("-d", "--debug", action="store_true", help="Flask's own server, and debug messages")
    parser.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="how much to log")
    parser.add_argument("--model-dir", help="folder for caches and exports (MODEL_DIR)")
    parser.add_argument("--check", action="store_true", help="make a model instance and load the weights first")
    parser.add_argument(
        "--keep-trying",
        action="store_true",
        help="serve also while the weights can't be downloaded: say why, and try again",
    )
    parser.add_argument(
        "--with", "--kwargs", dest="kwargs", metavar="SETTING=VALUE", nargs="+", default=[], help="other settings"
    )
    parser.add_argument("--basic-auth-user", help="login that callers must give")
    parser.add_argument("--basic-auth-pass", help="password that callers must give")
    return parser.parse_args(arguments)


def _environment_of(options: argparse.Namespace) -> dict[str, str]:
    given = {
        "MODEL_CLASS": options.model,
        "PORT": options.port,
        "LOG_LEVEL": options.log_level or ("DEBUG" if options.debug else None),
        "MODEL_DIR": options.model_dir,
        "BASIC_AUTH_USER": options.basic_auth_user,
        "BASIC_AUTH_PASS": options.basic_auth_pass,
    }
    for pair in options.kwargs:
        name, _, value = pair.partition("=")
        given[name.upper()] = value
    return {name: str(value) for name, value in given.items() if value is not None}


def _check_start(*, keeps_trying: bool = False) -> tuple[Settings, ModelClass]:
    try:
        settings = load_settings()
        model_class = ModelClass.named(settings.model_class)
        folder = WeightsFolder(settings.model_root, settings.model_names)
        for name in settings.model_names:
            if not (keeps_trying and folder.is_to_be_downloaded(name)):
                find_weights(name, settings.model_root, may_download=True)
        _check_workers(settings)
    except UserError as error:
        _refuse(error)
    return settings, model_class


def _check_workers(settings: Settings) -> None:
    """Raises UserError where Start Training would reach a worker that has no token: Label Studio tells it to one."""
    if settings.workers > 1 and settings.training == "on" and settings.label_studio_api_key is None:
        raise UserError(
            f"WORKERS={settings.workers} with TRAINING=on needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, because "
            "Label Studio sends its token to one worker only: set both, or WORKERS=1"
        )


def _check_port(host: str, port: int) -> None:
    """Exits with a line if the port isn't free. gunicorn would try for seconds, and show errors of its own."""
    if {"LISTEN_FDS", "GUNICORN_FD"} & os.environ.keys():  # systemd or the gunicorn before this one listens for us
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            who = _listener_at(host, port)
            _refuse(f"port {port} is taken{who}: stop what listens there, or choose another one with --port (PORT)")
        if error.errno in {errno.EACCES, errno.EPERM}:
            _refuse(f"port {port} may not be listened on by this user: choose one above 1023 with --port (PORT)")
        _refuse(f"--host {host} is no address of this machine: leave it out, and all of them are listened on")


def _listener_at(host: str, port: int) -> str:
    """What listens there, as far as can be seen at once."""
    seen_at = "127.0.0.1" if host in {"0.0.0.0", "::", ""} else host
    try:
        RemoteBackend(f"http://{f'[{seen_at}]' if ':' in seen_at else seen_at}:{port}").index()
    except BackendLoginError:
        return ", perhaps by another of these backends"
    except BackendError:
        return ""
    return " by another of these backends"


def _check_model(model_class: ModelClass) -> None:
    from yolo_backend.serving.request import default_predictor

    predictor = default_predictor()
    try:
        model_class.load()(project_id="0", label_config="<View/>")
        infos = [predictor.catalog.wait_for_info(name, timeout_s=None) for name in predictor.settings.model_names]
        for name in predictor.settings.model_names:
            predictor.catalog.wait_for_runtime(name)
    except UserError as error:
        _refuse(error)
    for info in infos:
        print(f"{info.name}: {info.kind} weights of {len(info.class_names)} classes, ready")


def _refuse(error: Exception | str) -> NoReturn:
    print(f"The backend can't start: {error}", file=sys.stderr)
    # gunicorn's code for an application that fails to load. With any other, it would start workers for ever.
    raise SystemExit(4) from None
