"""gunicorn as it serves the backend: with threads, with limits for silent clients, and with an orderly stop."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from yolo_backend.settings import Settings

# The time for what still runs when the backend has to stop: images under way, their answers, and a last import.
_GRACEFUL_TIMEOUT_S = 60
# If a client sends or reads nothing for so long, its thread is freed.
_IDLE_CLIENT_S = 60
# What tells a process to end. They wait while a worker is forked, or its parent's handlers would take them for nothing.
_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves, and after SIGTERM stays until what runs is done."""

    def init_signals(self) -> None:
        """From here on the worker heeds signals, those too that came since it was forked."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_END)

    def enqueue_req(self, conn: Any) -> None:
        """Take a client's request. The client may not be silent for long."""
        with contextlib.suppress(OSError):  # it may have hung up already
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _IDLE_CLIENT_S, 0))
        super().enqueue_req(conn)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop. It still listens, so that /health can say why nothing more is taken."""
        threading.Thread(target=self._drain, args=(sig, frame), daemon=True).start()

    def _drain(self, sig: int, frame: Any) -> None:
        try:
            if app := getattr(self, "wsgi", None):  # otherwise it is still starting
                app.extensions["predictor"].drain(_GRACEFUL_TIMEOUT_S - 5)
        finally:
            super().handle_exit(sig, frame)


class _Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Starts the workers."""

    def spawn_worker(self) -> int | None:
        """The new worker's process id; in the worker it doesn't return."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_END)
        try:
            pid: int | None = super().spawn_worker()
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_END)


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

    def run(self) -> None:
        """Serve until told to end."""
        _Master(self).run()

    def load(self) -> Flask:
        """The application, in the process that serves it."""
        return self._make_app()
