"""Bulk work to measure the backend by: images from a server of their own, asked for as Label Studio asks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.harness.stack import ROOT, BackendServer, backend_server

Task = dict[str, Any]

LABEL_CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="nut"/><Label value="bolt"/><Label value="washer"/></RectangleLabels></View>"""
_ANSWER_TIMEOUT_S = 120.0


@contextlib.contextmanager
def image_server(images: Sequence[bytes], after_s: float = 0) -> Iterator[str]:
    """Serve JPEGs in turn as `/<number>.jpg`, each after a while; gives the server's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = images[int(self.path.strip("/").removesuffix(".jpg")) % len(images)]
            time.sleep(after_s)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def backend_of(
    module: str, port: int, environment: Mapping[str, str], log: Path
) -> AbstractContextManager[BackendServer]:
    """Start the backend as this module serves it, and stop it at the end. Raises StackError."""
    return backend_server(port, {**environment, "PYTHONPATH": str(ROOT)}, log, entry=("-m", module))


def predict(backend_url: str, tasks: Sequence[Task], project: str, label_config: str = LABEL_CONFIG) -> list[Any]:
    """The results of one request, an entry for each task. Raises requests.RequestException."""
    body = {"tasks": list(tasks), "label_config": label_config, "project": project}
    response = requests.post(f"{backend_url}/predict", json=body, timeout=_ANSWER_TIMEOUT_S)
    response.raise_for_status()
    results = list(response.json()["results"])
    if len(results) != len(tasks):
        raise ValueError(f"{len(results)} results for {len(tasks)} tasks")
    return results


def work(backend_url: str) -> list[dict[str, Any]]:
    """How far the backend is with each project, as its status page tells programs."""
    return list(requests.get(backend_url, timeout=10).json()["work"])


def is_at_work(backend_url: str) -> bool:
    """Returns True if the backend has not finished with a project yet: it may still import predictions."""
    return any(project["finished_at"] is None for project in work(backend_url))


def wait_until_idle(backend_url: str, timeout_s: float, look_every_s: float = 1.0) -> None:
    """Wait until the backend has nothing more to do or to deliver. Raises TimeoutError, which tells its work."""
    ends_at = time.monotonic() + timeout_s
    while is_at_work(backend_url):
        if time.monotonic() >= ends_at:
            raise TimeoutError(f"{backend_url} has not finished after {timeout_s:g} s: {work(backend_url)}")
        time.sleep(look_every_s)


def processor_s(pids: Iterable[int]) -> float:
    """The seconds of one core that these processes and their children took until now, those that ended, too."""
    parents = {psutil.Process(pid) for pid in pids}
    taken_s = 0.0
    for each in parents.union(*(parent.children(recursive=True) for parent in parents)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            taken_s += times.user + times.system + times.children_user + times.children_system
    return taken_s


def held_megabytes(backend: BackendServer) -> float:
    """The memory that the backend's processes hold."""
    process = psutil.Process(backend.process.pid)
    return float(sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / 1e6)
