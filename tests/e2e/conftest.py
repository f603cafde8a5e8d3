"""A real Label Studio, real backends and a real image server, each started once for a worker's end-to-end tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.harness.browser import OpenBrowser, StudioBrowser, studio_browsers
from tests.harness.chromium import find_chromium
from tests.harness.http_server import ServedFolder
from tests.harness.stack import (
    BackendServer,
    LabelStudioServer,
    backend_server,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting Label Studio takes up to a minute of the first test's time."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program."""
    found = find_chromium()
    assert found, "its tests are left out where there is none (tests/conftest.py)"
    return found


@pytest.fixture(scope="module")
def open_browser(chromium: Path, label_studio: LabelStudioServer) -> Iterator[OpenBrowser]:
    """Opens browsers with someone logged in, one after the other."""
    with studio_browsers(label_studio, chromium) as opening:
        yield opening


@pytest.fixture
def browser(request: pytest.FixtureRequest, open_browser: OpenBrowser) -> Iterator[StudioBrowser]:
    """A browser with someone logged in."""
    with open_browser(request.node.name) as browser:
        yield browser


@pytest.fixture(scope="session")
def local_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Label Studio serves as Local Files."""
    return tmp_path_factory.mktemp("local-files")


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory, local_files: Path) -> Iterator[LabelStudioServer]:
    """Label Studio as the strictest installation has it: one bad region rejects a whole answer."""
    environment = {
        "fflag_feat_utc_210_prediction_validation_15082025": "true",
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(local_files),
    }
    folder = tmp_path_factory.mktemp("stack") / "label-studio"
    with label_studio_server(folder, pick_port(0), legacy_tokens=True, environment=environment) as server:
        yield server


@pytest.fixture(scope="session")
def personal_access_token(label_studio: LabelStudioServer) -> str:
    return label_studio.personal_access_token()


@pytest.fixture(scope="session")
def client(label_studio: LabelStudioServer, personal_access_token: str) -> StudioClient:
    return StudioClient(label_studio.url, personal_access_token)


@pytest.fixture(scope="session")
def model_environment(bccd_environment: dict[str, str]) -> dict[str, str]:
    """The settings that all backends of the tests share."""
    return {
        **bccd_environment,
        # The tests' own image server is on a loopback address.
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def backend(
    label_studio: LabelStudioServer,
    personal_access_token: str,
    model_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BackendServer]:
    """The backend with a Personal Access Token."""
    environment = model_environment | {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": personal_access_token,
    }
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("backend") / "backend.log") as server:
        wait_until_ready(server.url)
        yield server


@pytest.fixture(scope="session")
def legacy_backend(
    label_studio: LabelStudioServer, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackendServer]:
    """The backend with a legacy token."""
    environment = model_environment | {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": label_studio.legacy_token,
    }
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("legacy") / "backend.log") as server:
        wait_until_ready(server.url)
        yield server


@pytest.fixture(scope="session")
def command_environment(
    label_studio: LabelStudioServer, personal_access_token: str, model_environment: dict[str, str]
) -> dict[str, str]:
    """The settings of a command, with a Personal Access Token."""
    return {**model_environment, "LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": personal_access_token}


@pytest.fixture(params=["personal access token", pytest.param("legacy token", marks=pytest.mark.proof)])
def either_environment(
    request: pytest.FixtureRequest, label_studio: LabelStudioServer, command_environment: dict[str, str]
) -> dict[str, str]:
    """The settings of a command, with one kind of token and with the other: in a change's tests of two commands."""
    is_legacy = request.param == "legacy token"
    return command_environment | ({"LABEL_STUDIO_API_KEY": label_studio.legacy_token} if is_legacy else {})


@pytest.fixture(scope="session")
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFolder]:
    """A plain web server on a folder."""
    folder = tmp_path_factory.mktemp("images")
    handler: Any = functools.partial(_QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield ServedFolder(folder, f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def prefixed_label_studio(label_studio: LabelStudioServer) -> Iterator[str]:
    """Label Studio behind a reverse proxy that puts it below a path."""
    prefix = "/tools/label-studio"

    class Proxy(_QuietHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.path.startswith(prefix + "/"):
                self.send_error(404)
                return
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            answer = requests.request(
                self.command,
                label_studio.url + self.path.removeprefix(prefix),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=60,
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = forward  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    server.shutdown()
    server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def do_HEAD(self) -> None:
        """As a bucket answers who asks whether it is there."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        pass
