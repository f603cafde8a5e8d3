"""The client of the speed benchmark: backends to measure, tasks that nobody asked for before, and their requests."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks.speed_limits import OFFLINE
from benchmarks.speed_photos import LABELS, PHOTOS, WEIGHTS, distinct, photo_file
from benchmarks.speed_server import PLAIN, PhotoServer
from tests.harness.bulk import Task, backend_of
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready

# The same weights at 640 pixels, at their own 320, and at 960, where they take twice as long as at 640.
IMAGE_SIZES = {"640": 640, "320": 320, "960": 960}
CLIENTS = 8
_ENVIRONMENT = {
    "MODEL_NAME": WEIGHTS.name,
    "MODEL_ROOT": str(WEIGHTS.parent.resolve()),
    "DEVICE": "cpu",
    "THREADS": str(CLIENTS + 4),  # some of them are kept for other calls
    "PREDICT_DEADLINE_SECONDS": "0",
    "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
}
_HANDWRITTEN = {
    "ENGINE": "torch",
    **OFFLINE,
}  # as its own model; ours, which reads the classes, need not be exported then
_ANSWER_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Asked:
    """A request that was answered."""

    images: int
    took_s: float
    boxes: int

    @property
    def images_per_s(self) -> float:
        return self.images / self.took_s


class Client:
    """Asks backends, as Label Studio does; `problems` tells what an answer lacked."""

    def __init__(self, folder: Path, server: PhotoServer, settings: Mapping[str, str]) -> None:
        """`folder` has the photographs in `photos`, and takes logs and exports; `settings` are for our backend."""
        self.folder = folder
        self.server = server
        self.problems: list[str] = []
        self._settings = settings
        self._numbers = itertools.count(1)

    @contextmanager
    def backend(self, weights: str, **environment: str) -> Iterator[BackendServer]:
        """Our backend, started and ready."""
        with self.starting_backend(weights, **environment) as backend:
            wait_until_ready(backend.url)
            yield backend

    def starting_backend(self, weights: str, **environment: str) -> AbstractContextManager[BackendServer]:
        """Our backend, started, which loads or exports its model still."""
        return backend_server(pick_port(0), self._environment(weights, environment), self._new_log())

    @contextmanager
    def backend_of(self, checkout: Path, weights: str) -> Iterator[BackendServer]:
        """The backend of a checkout, this one or another, started and ready."""
        environment = self._environment(weights, {"PYTHONPATH": str(checkout.resolve())})
        # -P: else the package in the current folder, which is this checkout's, would come first.
        entry = ("-P", "-m", "yolo_backend", "serve")
        with backend_server(pick_port(0), environment, self._new_log(), entry) as backend:
            wait_until_ready(backend.url)
            yield backend

    @contextmanager
    def handwritten_backend(self, weights: str) -> Iterator[BackendServer]:
        """The hand-written loop, started and ready."""
        environment = self._environment(weights, _HANDWRITTEN)
        with backend_of("benchmarks.handwritten_backend", pick_port(0), environment, self._new_log()) as backend:
            wait_until_ready(backend.url)
            yield backend

    def engine(self, backend: BackendServer) -> str:
        """What runs the model, and where."""
        says = requests.get(backend.url, timeout=_ANSWER_TIMEOUT_S).json()
        return f"{says['engine']} on {says['device']}"

    def tasks(self, name: str, count: int, mode: str = PLAIN) -> list[Task]:
        """New tasks, each with an image of its own."""
        numbers = itertools.islice(self._numbers, count)
        return [{"id": n, "data": {"image": self.server.address(mode, name, n)}} for n in numbers]

    def inline_tasks(self, name: str, count: int) -> list[Task]:
        """New tasks that hold their images themselves."""
        photos = [photo_file(self.folder / "photos", name, number).read_bytes() for number in range(PHOTOS)]
        numbers = itertools.islice(self._numbers, count)
        return [{"id": n, "data": {"image": _data_address(distinct(photos[n % PHOTOS], n))}} for n in numbers]

    def ask(self, backend: BackendServer, tasks: Sequence[Task], threshold: float | None = None) -> Asked:
        """Ask for all in one request, for a project that nobody asked for before."""
        body = json.dumps(
            {"tasks": list(tasks), "label_config": _label_config(threshold), "project": str(next(self._numbers))}
        ).encode()
        headers = {"Content-Type": "application/json"}
        began_at = time.monotonic()
        response = requests.post(f"{backend.url}/predict", body, headers=headers, timeout=_ANSWER_TIMEOUT_S)
        took_s = time.monotonic() - began_at
        response.raise_for_status()
        results = response.json()["results"]
        predicted = [result for result in results if result != []]
        if len(predicted) != len(tasks):
            last_line = backend.log.read_text(errors="replace").splitlines()[-1]
            self.problems.append(f"{len(predicted)} of {len(tasks)} tasks are predicted; the log ends: {last_line}")
        return Asked(len(tasks), took_s, sum(len(result["result"]) for result in predicted))

    def warm_up(self, backend: BackendServer, name: str, mode: str = PLAIN) -> None:
        """Ask for images of this size, before what is measured."""
        self.ask(backend, self.tasks(name, PHOTOS, mode))

    def _environment(self, weights: str, environment: Mapping[str, str]) -> dict[str, str]:
        size = {} if weights == "320" else {"MODEL_IMAGE_SIZE": str(IMAGE_SIZES[weights])}
        exports = {"MODEL_DIR": str(self.folder / "exports")}
        return {**_ENVIRONMENT, **exports, **size, **self._settings, **environment}

    def _new_log(self) -> Path:
        return self.folder / "logs" / f"{next(self._numbers)}.log"


def _label_config(threshold: float | None) -> str:
    at = "" if threshold is None else f' model_score_threshold="{threshold}"'
    labels = "".join(f'<Label value="{label}"/>' for label in LABELS)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image"{at}>{labels}</RectangleLabels></View>'
    )


def _data_address(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()
