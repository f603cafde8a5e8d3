"""What a training costs the people who work meanwhile: `python -m benchmarks.beside_training`.

With `--compose PROJECT`, server and training are those of `docker compose`, which must be up with this project, and the
training goes on to its end. The tables stand in docs/journal/training.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from PIL import Image

from tests.fakes.labelled_label_studio import PROJECT, TOKEN, LabelStudio
from tests.harness.bulk import LABEL_CONFIG, Task, predict
from tests.harness.http_server import http_servers
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import backend_server, bypass_proxies, pick_port, wait_until_ready
from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.demo.scenes import draw_scene
from yolo_backend.label_studio.projects import open_project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.settings import load_settings
from yolo_backend.training import launch
from yolo_backend.training.records import Options

_ROOT = Path(__file__).resolve().parent.parent
_REPORT = _ROOT / "docs" / "journal" / "training.md"
_COMPOSE_STUDIO, _COMPOSE_BACKEND = "http://127.0.0.1:8080", "http://127.0.0.1:9090"
_SWITCHES_WITHIN_S = 60.0
_SCENES, _SHOWN_SCENES = 40, 12
_BETWEEN_S = 0.3  # a person looks at an image before the next one
_BULK_TASKS = 48
_BEGINS_WITHIN_S = 300.0
_ENVIRONMENT = {
    "MODEL_NAME": "demo",
    "MODEL_IMAGE_SIZE": "640",
    "CACHE_MEGABYTES": "0",  # the same images again and again
    "DEVICE": "cpu",
    "PREDICT_DEADLINE_SECONDS": "0",
}


@dataclass
class Measured:
    """Seconds of a person's requests, images a second of a bulk request, and megabytes of what trains."""

    person_s: list[float] = field(default_factory=list)
    bulk_per_s: list[float] = field(default_factory=list)
    megabytes: float = 0.0

    @property
    def p95_s(self) -> float:
        return statistics.quantiles(self.person_s, n=20)[-1]


def main() -> None:
    """Measure without a training, then beside one, and write the table."""
    parser = argparse.ArgumentParser(description="Measure what a training costs those who work beside it.")
    parser.add_argument("--requests", type=int, default=150, help="of a person, each time (%(default)s)")
    parser.add_argument("--compose", type=int, metavar="PROJECT", help="beside `docker compose run train` of it")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    bypass_proxies()
    if options.compose:
        section = _measure_compose(options.compose, options.requests)
        name = "beside-compose"
    else:
        section, name = _measure_here(options.requests), "beside-training"
    print(section)
    if not options.no_report:
        write_section(name, section, report=_REPORT)


def _measure_here(requests: int) -> str:
    """A server and a training as they are without containers; returns what is to be said of them."""
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="beside-training-") as name, http_servers() as serve:
        folder = Path(name)
        environment = {**_ENVIRONMENT, "MODEL_DIR": str(folder / "backend")}
        with backend_server(pick_port(0), environment, folder / "backend.log") as backend:
            wait_until_ready(backend.url)
            tasks = _Tasks()
            predict(backend.url, tasks.new(_SHOWN_SCENES), "warm-up")
            idle = _measure(backend.url, tasks, requests)
            with _training(folder / "trained", serve(LabelStudio(scenes=_SCENES)).url) as training:
                beside = _measure(backend.url, tasks, requests)
                if training.process.poll() is not None:
                    raise SystemExit("the training ended before all was measured: its minutes are too few")
                beside.megabytes = psutil.Process(training.process.pid).memory_info().rss / 1e6
    return "\n\n".join(
        [
            made_by("beside-training", time.monotonic() - began_at, "python -m benchmarks.beside_training"),
            f"The demo's weights at 640 predict, and others of the same size train on {_SCENES} scenes at 640. "
            f"{requests} requests of one task each, {_BETWEEN_S:g} s apart.",
            _table(idle, beside),
            f"What trained took {beside.megabytes:,.0f} MB of memory.",
        ]
    )


def _measure_compose(project_id: int, requests: int) -> str:
    """The containers of `docker compose`; returns what is to be said of them."""
    began_at = time.monotonic()
    settings = load_settings(label_studio_url=_COMPOSE_STUDIO)
    token = settings.label_studio_api_key
    if token is None:
        raise SystemExit("set LABEL_STUDIO_API_KEY, as Compose has it")
    project = open_project(Studio(_COMPOSE_STUDIO, token.get_secret_value()), project_id)
    backend, tasks = RemoteBackend(_COMPOSE_BACKEND), _Tasks()
    before = backend.setup(project.sent_as, project.label_config)
    predict(backend.url, tasks.new(_SHOWN_SCENES), "warm-up")
    idle = _measure(backend.url, tasks, requests)
    command = ["docker", "compose", "run", "--rm", "-T", "train", "--project", str(project_id)]
    command += ["--minutes", "4", "--image-size", "640", "--promote", "always"]
    with subprocess.Popen(command, cwd=_ROOT) as training:
        try:
            _wait_until_fitting(lambda: _stage(backend), lambda: training.poll() is None)
            beside = _measure(backend.url, tasks, requests)
            if _stage(backend) != "fitting":
                raise SystemExit("the training ended before all was measured: its minutes are too few")
            if code := training.wait():
                raise SystemExit(f"the training ended with {code}")
        finally:
            training.terminate()
    ended_at = time.monotonic()
    while backend.setup(project.sent_as, project.label_config) == before:
        if time.monotonic() - ended_at > _SWITCHES_WITHIN_S:
            raise SystemExit("the new model doesn't serve")
        time.sleep(0.1)
    switched_s = time.monotonic() - ended_at
    return "\n\n".join(
        [
            f"Made by `python -m benchmarks.beside_training --compose {project_id}` in "
            f"{(time.monotonic() - began_at) / 60:.0f} minutes, on {os.cpu_count()} CPU cores, without a GPU.",
            f"The containers of `docker compose`: the server with the demo's weights at 640, `CACHE_MEGABYTES=0`, and "
            f"`docker compose run train` on the labelled scenes of a project, at 640. {requests} requests of one task "
            f"each, {_BETWEEN_S:g} s apart.",
            _table(idle, beside),
            f"The new model served {switched_s:.1f} s after the end of the command.",
        ]
    )


def _stage(backend: RemoteBackend) -> str | None:
    """What the training under way does, as the server's page says; `begun` where it has no step behind it."""
    for project in backend.index()["trainings"]:
        for run in project["runs"]:
            if run["run"] == project["running"] and run["progress"]:
                stage = str(run["progress"]["stage"])
                return stage if stage != "fitting" or run["progress"]["epoch"] else "begun"
    return None


class _Tasks:
    """Tasks that hold their images themselves."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._addresses = [_data_address(seed) for seed in range(_SHOWN_SCENES)]

    def new(self, count: int) -> list[Task]:
        return [
            {"id": number, "data": {"image": self._addresses[number % _SHOWN_SCENES]}}
            for number in itertools.islice(self._ids, count)
        ]


def _data_address(seed: int) -> str:
    file = io.BytesIO()
    Image.fromarray(draw_scene(seed).image).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _measure(url: str, tasks: _Tasks, requests: int) -> Measured:
    """A person's requests with pauses, then some bulk ones."""
    measured = Measured()
    for _ in range(requests):
        measured.person_s.append(_timed(lambda: predict(url, tasks.new(1), "person", LABEL_CONFIG)))
        time.sleep(_BETWEEN_S)
    for number in range(5):
        took_s = _timed(partial(predict, url, tasks.new(_BULK_TASKS), f"bulk {number}", LABEL_CONFIG))
        measured.bulk_per_s.append(_BULK_TASKS / took_s)
    return measured


def _timed(work: Callable[[], object]) -> float:
    began_at = time.monotonic()
    work()
    return time.monotonic() - began_at


@contextmanager
def _training(model_dir: Path, studio_url: str) -> Iterator[launch.Training]:
    """A training that fits, for long enough."""
    settings = load_settings(
        label_studio_url=studio_url, label_studio_api_key=TOKEN, model_name="demo", model_dir=model_dir, device="cpu"
    )
    training = launch.start(PROJECT, Options("demo", minutes=60, image_size=640), settings)
    waiter = threading.Thread(target=training.wait, daemon=True)
    waiter.start()
    try:

        def stage() -> str | None:
            progress = training.run().progress
            return progress.stage if progress and progress.epoch else None

        _wait_until_fitting(stage, lambda: training.process.poll() is None)
        yield training
    finally:
        training.cancel()


def _wait_until_fitting(stage: Callable[[], str | None], runs: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + _BEGINS_WITHIN_S
    while (found := stage()) != "fitting":
        if time.monotonic() > ends_at or not runs():
            raise SystemExit(f"the training doesn't fit: {found}")
        time.sleep(0.5)


def _table(idle: Measured, beside: Measured) -> str:
    rows = [
        [
            name,
            f"{1000 * statistics.median(each.person_s):.0f} ms",
            f"{1000 * each.p95_s:.0f} ms",
            f"{statistics.median(each.bulk_per_s):.1f}",
        ]
        for name, each in (("nothing else", idle), ("a training", beside))
    ]
    rows.append(
        [
            "ratio",
            f"{statistics.median(beside.person_s) / statistics.median(idle.person_s):.2f}",
            f"{beside.p95_s / idle.p95_s:.2f} (limit 1.5)",
            f"{statistics.median(beside.bulk_per_s) / statistics.median(idle.bulk_per_s):.2f}",
        ]
    )
    head = ["beside", "a person's request, median", "95 %", "bulk, images/s"]
    return table(head, rows)


if __name__ == "__main__":
    main()
