"""What a training costs the people who work meanwhile: `python -m benchmarks.beside_training`.

The table stands in docs/journal/training.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import statistics
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
from yolo_backend.demo.scenes import draw_scene
from yolo_backend.settings import load_settings
from yolo_backend.training import launch
from yolo_backend.training.records import Options

_REPORT = Path(__file__).resolve().parent.parent / "docs" / "journal" / "training.md"
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
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    bypass_proxies()
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="beside-training-") as name, http_servers() as serve:
        folder = Path(name)
        environment = {**_ENVIRONMENT, "MODEL_DIR": str(folder / "backend")}
        with backend_server(pick_port(0), environment, folder / "backend.log") as backend:
            wait_until_ready(backend.url)
            tasks = _Tasks()
            predict(backend.url, tasks.new(_SHOWN_SCENES), "warm-up")
            idle = _measure(backend.url, tasks, options.requests)
            with _training(folder / "trained", serve(LabelStudio(scenes=_SCENES)).url) as training:
                beside = _measure(backend.url, tasks, options.requests)
                if training.process.poll() is not None:
                    raise SystemExit("the training ended before all was measured: its minutes are too few")
                beside.megabytes = psutil.Process(training.process.pid).memory_info().rss / 1e6
    section = _section(idle, beside, time.monotonic() - began_at)
    print(section)
    if not options.no_report:
        write_section("beside-training", section, report=_REPORT)


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
        ends_at = time.monotonic() + _BEGINS_WITHIN_S
        while (progress := training.run().progress) is None or progress.stage != "fitting" or not progress.epoch:
            if time.monotonic() > ends_at or training.process.poll() is not None:
                raise SystemExit(f"the training doesn't fit: {training.run()}")
            time.sleep(0.5)
        yield training
    finally:
        training.cancel()


def _section(idle: Measured, beside: Measured, took_s: float) -> str:
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
    return "\n\n".join(
        [
            made_by("beside-training", took_s, "python -m benchmarks.beside_training"),
            f"The demo's weights at 640 predict, and others of the same size train on {_SCENES} scenes at 640. "
            f"{len(idle.person_s)} requests of one task each, {_BETWEEN_S:g} s apart.",
            table(head, rows),
            f"What trained took {beside.megabytes:,.0f} MB of memory.",
        ]
    )


if __name__ == "__main__":
    main()
