"""What the tests share: data, weights, images, and real HTTP servers that record what they are asked."""

from __future__ import annotations

import importlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from yolo_backend.images.decode import decode_image
from yolo_backend.settings import setting_variables

# Ultralytics reads these when it is imported.
_YOLO_CONFIG = tempfile.TemporaryDirectory(prefix="yolo-config-")
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_OFFLINE"] = "true"
os.environ["YOLO_CONFIG_DIR"] = _YOLO_CONFIG.name

hypothesis.settings.register_profile("backend", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("backend")

_REPOSITORY = Path(__file__).parent.parent

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class RecordedRequest:
    """A request as the server saw it; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class RecordingServer:
    """A real HTTP server on 127.0.0.1. `answer` may be changed while it runs."""

    answer: Answer
    port: int = 0
    requests: list[RecordedRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


StartServer = Callable[[Answer], RecordingServer]


def reply(content: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer that is the same for each request; `Some_Header="x"` becomes `Some-Header: x`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = "Content_Length" in headers  # one that may not be true
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirect(target: str, status: int = 302) -> Answer:
    """An answer that sends on to `target`."""
    return reply(b"", status, Location=target)


def encode(pixels: NDArray[np.uint8] | Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """An image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of test data: `TEST_DATA_DIR`, by default `shared` beside the repository."""
    named = os.environ.get("TEST_DATA_DIR")
    folder = Path(named) if named else _REPOSITORY.parent / "shared"
    if not (folder / "data" / "bccd" / "images").is_dir():
        pytest.fail(f"The test data are not in {folder}: set TEST_DATA_DIR to the folder with data/bccd and weights")
    return folder


@pytest.fixture(scope="session")
def bccd_weights(data_dir: Path) -> Path:
    """The weights of a small, real detector of blood cells: RBC, WBC, Platelets."""
    return data_dir / "weights" / "bccd-yolo11n.pt"


@pytest.fixture(scope="session")
def bccd_files(data_dir: Path) -> list[Path]:
    """Photographs of blood, 640x480."""
    return sorted((data_dir / "data" / "bccd" / "images").glob("*/*.jpg"))


@pytest.fixture(scope="session")
def bccd_images(bccd_files: list[Path]) -> list[NDArray[np.uint8]]:
    """24 of them as RGB pixels."""
    return [decode_image(file.read_bytes(), 10).pixels for file in bccd_files[::12][:24]]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `MODEL_DIR` for all tests, for an export takes seconds: those of the blood cells' weights are made once."""
    return tmp_path_factory.mktemp("model_dir")


@pytest.fixture(scope="session")
def bccd_environment(bccd_weights: Path, model_dir: Path) -> dict[str, str]:
    """The settings of a backend that serves the blood cells' weights."""
    return {"MODEL_NAME": bccd_weights.name, "MODEL_ROOT": str(bccd_weights.parent), "MODEL_DIR": str(model_dir)}


@pytest.fixture(scope="session")
def export_folder(model_dir: Path) -> Path:
    """Where the backend keeps its exports there."""
    return model_dir / "exports"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No setting in the environment, and none in a `.env` of the current folder, which is an empty one."""
    for variable in setting_variables():
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return monkeypatch


@pytest.fixture
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster of two real nodes of one core each."""
    cluster_utils: Any = importlib.import_module("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def serve() -> Iterator[StartServer]:
    """Starts real HTTP servers; they end with the test."""
    running: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> RecordingServer:
        recording = RecordingServer(answer)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                recording.requests.append(RecordedRequest(self.command, self.path, headers, body))
                with suppress(ConnectionError):  # a client may hang up: that is what some tests are about
                    recording.answer(self)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        recording.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return recording

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
