"""The real backend in the test's own process, over real HTTP: what a test puts into a table of ours is served."""

from __future__ import annotations

import html
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
import requests
from werkzeug.serving import make_server

from yolo_backend.model import YoloBackend
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import default_predictor


@contextmanager
def app_here(patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Iterator[str]:
    """Serve with these settings, which `patch` puts into the environment; the address. The weights are loaded."""
    for variable, value in environment.items():
        patch.setenv(variable, value)
    default_predictor.cache_clear()
    predictor = default_predictor()
    try:
        predictor.catalog.wait_for_runtime(predictor.settings.model_name)
        server = make_server("127.0.0.1", 0, create_app(ModelClass.of(YoloBackend), predictor), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.port}"
        server.shutdown()
        thread.join()
        server.server_close()
    finally:
        predictor.close()
        default_predictor.cache_clear()


def text_of_page(url: str) -> str:
    """What a person reads on the status page, with single spaces between."""
    response = requests.get(url, headers={"Accept": "text/html"}, timeout=10)
    assert response.headers["Content-Type"].startswith("text/html")
    _, _, body = response.text.partition("<body>")
    in_one_line = re.sub(r"</?(bdi|code|span|strong|time)\b[^>]*>", "", body)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", in_one_line)).split())


def wait_for_title(url: str, project: int) -> None:
    """Wait until the page of the backend at this address knows what the project is called."""
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        if any(
            each["title"]
            for each in requests.get(url, timeout=10).json()["projects"]
            if each["project"] == str(project)
        ):
            return
        time.sleep(0.2)
    raise AssertionError(f"the page doesn't know the title of project {project}")
