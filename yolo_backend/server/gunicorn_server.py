"""gunicorn as it serves the backend: threads, clients that fall silent, and a stop that lets finish what runs."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker

from yolo_backend.settings import Settings

# For what runs when the backend is told to stop: the images under way, their answers, and a last push.
_GRACEFUL_TIMEOUT_S = 60
# A client that sends or reads nothing for so long gives its thread back.
_IDLE_CLIENT_S = 60


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves, and stays after SIGTERM for what runs."""

    def enqueue_req(self, conn: Any) -> None:
        """Take a request of a client, which may not be silent for long."""
        with contextlib.suppress(OSError):  # it may have hung up already
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _IDLE_CLIENT_S, 0))
        super().enqueue_req(conn)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop: still listening, so that /health can tell why nothing more is taken."""
        threading.Thread(target=self._drain, args=(sig, frame), daemon=True).start()

    def _drain(self, sig: int, frame: Any) -> None:
        try:
            if app := getattr(self, "wsgi", None):  # else it is still starting
                app.extensions["predictor"].drain(_GRACEFUL_TIMEOUT_S - 5)
        finally:
            super().handle_exit(sig, frame)


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Serves what `make_app` makes, in each worker."""

    def __init__(self, settings: Settings, host: str, make_app: Callable[[], Flask]) -> None:
        self._settings = settings
        self._host = host
        self._make_app = make_app
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options."""
        settings, host = self._settings, self._host
        options: dict[str, Any] = {
            "bind": f"{f'[{host}]' if ':' in host else host}:{settings.port}",
            "workers": settings.workers,
            "worker_class": Worker,
            "threads": settings.threads,
            "timeout": 120,
            "graceful_timeout": _GRACEFUL_TIMEOUT_S,
            "loglevel": settings.log_level.lower(),
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application, in the process that serves it."""
        return self._make_app()
