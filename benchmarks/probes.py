"""Label Studio's short calls, and a person's, while bulk work keeps the model busy: `python -m benchmarks.probes`.

The table stands in docs/journal/reliability.md. Exits with 1 where a limit is broken.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from tests.harness.bulk import LABEL_CONFIG, Task, image_server, predict
from tests.harness.recording_backend import Batch, LoneImage, read_order, recording_backend_server
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import bypass_proxies, pick_port, wait_until_ready
from yolo_backend.demo.scenes import draw_scene

HEALTH, SETUP, PREDICT = "/health", "/setup", "/predict"
# Label Studio gives up after these.
LIMITS_S = {HEALTH: 1.0, SETUP: 3.0}
_ROUNDS = 170  # of three probes: more than 500
_THREADS = 8
_PROJECTS = 10
_TASKS_EACH = 60
_SHAPES_WH = ((640, 480), (480, 640), (640, 360), (640, 640))
_IMAGE_AFTER_S = 0.05
_ENVIRONMENT = {
    "MODEL_NAME": "demo",
    "CACHE_MEGABYTES": "0",  # the same images again and again
    "DEVICE": "cpu",
    "THREADS": str(_THREADS),
    "PREDICT_DEADLINE_SECONDS": "15",
    "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
}
_CLICK_AGAIN_AFTER_S = 0.5
_BATCHES_BEFORE = 5
_LONE_IDS = 1_000_000
_FINISH_WITHIN_S = 180.0
_PROBE_TIMEOUT_S = 60.0


@dataclass
class Measured:
    """What came out: seconds of each route's probes, the order in the queue, and the bulk work's tasks."""

    probes_s: dict[str, list[float]] = field(default_factory=lambda: {HEALTH: [], SETUP: [], PREDICT: []})
    failures: list[str] = field(default_factory=list)
    lone_images: list[LoneImage] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    asked: int = 0
    predicted: int = 0
    took_s: float = 0.0

    @property
    def passed_by(self) -> int:
        """How many lone images were passed by bulk work: there should be none."""
        return sum(image.passed_by > 0 for image in self.lone_images)

    def problems(self) -> list[str]:
        """The limits that were broken."""
        problems = list(self.failures)
        for route, limit_s in LIMITS_S.items():
            late = [took_s for took_s in self.probes_s[route] if took_s >= limit_s]
            if late:
                problems.append(f"{len(late)} answers of {route} took {limit_s:g} s and more, up to {max(late):.2f} s")
        behind = [image.batches_behind for image in self.lone_images]
        if len(behind) != len(self.probes_s[PREDICT]):
            problems.append(f"{len(self.probes_s[PREDICT])} lone images were asked for, {len(behind)} were in a batch")
        if self.passed_by:
            problems.append(f"{self.passed_by} lone images were passed by bulk work")
        if not any(behind):
            problems.append("no lone image met a batch in the model: it had too little to do")
        if self.predicted < self.asked:
            problems.append(f"{self.asked - self.predicted} of {self.asked} bulk tasks are not predicted")
        return problems


def main() -> None:
    """Measure and write. Exits with 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description="Time the short calls while bulk work keeps the model busy.")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="probes of each of the three routes")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    bypass_proxies()
    with tempfile.TemporaryDirectory(prefix="probes-") as folder:
        measured = measure(Path(folder) / "backend.log", options.rounds)
    section = _section(measured)
    print(section)
    if not options.no_report:
        write_section("probes", section)
    problems = measured.problems()
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if problems else 0)


def measure(backend_log: Path, rounds: int, tasks_each: int = _TASKS_EACH) -> Measured:
    """Start the backend, keep it busy with bulk requests of so many tasks, and probe each route meanwhile."""
    measured = Measured()
    is_over = threading.Event()
    with (
        image_server(_scenes(), _IMAGE_AFTER_S) as images_url,
        recording_backend_server(pick_port(0), _ENVIRONMENT, backend_log) as server,
        ThreadPoolExecutor(_PROJECTS) as pool,
    ):
        wait_until_ready(server.url)
        began_at = time.monotonic()
        bulk = [
            pool.submit(_keep_busy, server.url, images_url, str(project), tasks_each, is_over)
            for project in range(1, _PROJECTS + 1)
        ]
        try:
            _wait_for_batches(backend_log)
            for number in range(rounds):
                _probe(server.url, number, measured)
        finally:
            is_over.set()
        for asked, predicted in (future.result() for future in bulk):
            measured.asked += asked
            measured.predicted += predicted
        measured.took_s = time.monotonic() - began_at
        measured.lone_images, measured.batches = read_order(backend_log)
    return measured


@cache
def _scenes() -> list[bytes]:
    """Demo scenes as JPEGs, in turn of each shape."""
    files = []
    for seed, size_wh in zip(range(3 * len(_SHAPES_WH)), itertools.cycle(_SHAPES_WH), strict=False):
        file = io.BytesIO()
        Image.fromarray(draw_scene(seed).image).resize(size_wh).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def _keep_busy(
    backend_url: str, images_url: str, project: str, count: int, is_over: threading.Event
) -> tuple[int, int]:
    """Click, and click again for what is missing, then for other tasks, until it is over; tasks asked and predicted."""
    asked = predicted = 0
    while not is_over.is_set():
        missing: list[Task] = [
            {"id": number, "data": {"image": f"{images_url}/{number}.jpg"}} for number in range(asked, asked + count)
        ]
        asked += len(missing)
        ends_at = time.monotonic() + _FINISH_WITHIN_S
        while missing and time.monotonic() < ends_at:
            results = predict(backend_url, missing, project)
            predicted += sum(result != [] for result in results)
            missing = [task for task, result in zip(missing, results, strict=True) if result == []]
            if missing:
                time.sleep(_CLICK_AGAIN_AFTER_S)
    return asked, predicted


def _wait_for_batches(backend_log: Path) -> None:
    """Wait until the bulk work is well under way. Raises TimeoutError."""
    ends_at = time.monotonic() + _FINISH_WITHIN_S
    while len(read_order(backend_log)[1]) < _BATCHES_BEFORE:
        if time.monotonic() > ends_at:
            raise TimeoutError(f"the bulk work doesn't begin: see {backend_log}")
        time.sleep(0.1)


def _probe(backend_url: str, number: int, measured: Measured) -> None:
    """Ask each route once, as Label Studio does, and a person who opens a task of a project at work."""
    project = str(number % _PROJECTS + 1)
    image = "data:image/jpeg;base64," + base64.b64encode(_scenes()[number % len(_scenes())]).decode()
    task = {"id": _LONE_IDS + number, "data": {"image": image}}
    probes: dict[str, Callable[[], bool]] = {
        HEALTH: lambda: requests.get(backend_url + HEALTH, timeout=_PROBE_TIMEOUT_S).ok,
        SETUP: lambda: (
            requests.post(
                backend_url + SETUP, json={"project": project, "schema": LABEL_CONFIG}, timeout=_PROBE_TIMEOUT_S
            ).ok
        ),
        PREDICT: lambda: predict(backend_url, [task], project) != [[]],
    }
    for route, ask in probes.items():
        began_at = time.monotonic()
        if not ask():
            measured.failures.append(f"{route} failed or gave no prediction")
        measured.probes_s[route].append(time.monotonic() - began_at)


def _section(measured: Measured) -> str:
    lone, batches = measured.lone_images, measured.batches
    behind = [image.batches_behind for image in lone]
    busy = sum(batch.took_s for batch in batches) / measured.took_s
    rows = [
        _row(f"`{HEALTH}`", measured.probes_s[HEALTH], f"{LIMITS_S[HEALTH]:g} s"),
        _row(f"`{SETUP}`", measured.probes_s[SETUP], f"{LIMITS_S[SETUP]:g} s"),
        _row(f"one-task `{PREDICT}`", measured.probes_s[PREDICT], "behind no bulk image in the queue"),
        _row("of that, in the model's queue", [image.waited_s for image in lone], "the batch in the model"),
        _row("for comparison: a batch in the model", [batch.took_s for batch in batches], ""),
    ]
    return "\n".join(
        [
            made_by("probes", measured.took_s),
            "",
            f"{_PROJECTS} callers, each with a project of its own, ask for {_TASKS_EACH} tasks and click again until "
            f"all are predicted, then for {_TASKS_EACH} more, until the probes are over: more callers than the backend "
            f"(gunicorn, THREADS={_THREADS}, the demo's weights on the CPU) has threads. The images have "
            f"{len(_SHAPES_WH)} shapes; their HTTP server takes {_IMAGE_AFTER_S * 1000:.0f} ms for each. The routes "
            "are asked in turn, the lone task for a project at work, with its image as a `data:` address.",
            "",
            table(["", "times", "p50", "p95", "slowest", "limit"], rows),
            "",
            f"- **Bulk work.** {measured.predicted:,} of {measured.asked:,} tasks predicted. The model was at work for "
            f"{busy:.0%} of the time, on {len(batches):,} batches.",
            "- **Order.** The queue and the engine note each lone image's coming, each image that is taken, and each "
            f"batch's beginning and end. {measured.passed_by or 'None'} of the lone images were "
            f"passed by bulk work; up to {max((image.queued for image in lone), default=0)} images of it were in the "
            f"queue before one. {sum(count > 0 for count in behind)} of {len(behind)} times a batch ended before it "
            f"began, {max(behind, default=0)} at most.",
            f"- **Limits broken:** {len(measured.problems())}.",
        ]
    )


def _row(name: str, seconds: Sequence[float], limit: str) -> list[str]:
    p50, p95, slowest = np.percentile(seconds, [50, 95, 100]) if seconds else (0.0, 0.0, 0.0)
    return [name, str(len(seconds)), f"{p50:.3f} s", f"{p95:.3f} s", f"{slowest:.3f} s", limit]


if __name__ == "__main__":
    main()
