"""The tests' way to start a real Label Studio and real backends: the demo's own, and what only tests need."""

from __future__ import annotations

import time

import requests

from yolo_backend.demo.stack import (
    LABEL_STUDIO,
    ROOT,
    BackendServer,
    LabelStudioServer,
    StackError,
    backend_server,
    bypass_proxies,
    label_studio_server,
    pick_port,
)

__all__ = [
    "LABEL_STUDIO",
    "ROOT",
    "BackendServer",
    "LabelStudioServer",
    "StackError",
    "backend_server",
    "bypass_proxies",
    "label_studio_server",
    "pick_port",
    "wait_until_ready",
]

_READY_TIMEOUT_S = 120.0


def wait_until_ready(backend_url: str) -> None:
    """Wait until a backend that is up has read its weights. Raises StackError."""
    ends_at = time.monotonic() + _READY_TIMEOUT_S
    while requests.get(f"{backend_url}/", timeout=10).json()["status"] != "UP":
        if time.monotonic() > ends_at:
            raise StackError(f"the backend at {backend_url} has not read its weights yet")
        time.sleep(0.2)
