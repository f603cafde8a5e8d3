"""The backend's memory over requests of up to 5,000 photographs of 12 megapixels: `python -m benchmarks.memory`.

The plot and the table stand in docs/journal/reliability.md. Exits with 1 if the peak grows with the number of tasks, or
if a task has no prediction in the end.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from PIL import Image

from tests.harness.bulk import Task, held_megabytes, image_server, predict, work
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import ROOT, BackendServer, backend_server, bypass_proxies, pick_port, wait_until_ready
from yolo_backend.demo.scenes import draw_scene

_PLOT = ROOT / "docs" / "images" / "memory.png"
_TASKS = (50, 500, 5000)
# Of the largest request's peak above that of the one before. What a task leaves behind, its prediction, is small.
_TOLERANCE = 0.15
_SIZE_WH = (4000, 3000)
_PHOTOS = 6
_ENVIRONMENT = {
    "MODEL_NAME": "demo",
    "MODEL_IMAGE_SIZE": "320",  # so that fetching and decoding are what counts
    "DEVICE": "cpu",
    "CACHE_MEGABYTES": "0",  # the same photographs again and again
    "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
}
_PROJECT = "1"
_LOOK_EVERY_S = 0.5
_LOOKS_AT_MEMORY = 5  # in that time: a decoded photograph lives for a fraction of a second
_LOOKS_UNTIL_TOLD = 60
_REST_S = 2.0


@dataclass(frozen=True)
class Sample:
    """The most memory held in the last half second, and how many tasks were done and left by then."""

    megabytes: float
    done: int
    left: int


@dataclass(frozen=True)
class Run:
    """One request, from before it was sent until its last result was answered."""

    tasks: int
    samples: list[Sample]
    predicted: int
    work_s: float

    @property
    def idle_megabytes(self) -> float:
        return self.samples[0].megabytes

    @property
    def peak_megabytes(self) -> float:
        return max(sample.megabytes for sample in self.samples)

    @property
    def end_megabytes(self) -> float:
        return self.samples[-1].megabytes


def main() -> None:
    """Measure, draw and write. Exits with 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description="Measure the backend's memory by the number of tasks in a request.")
    parser.add_argument("--tasks", type=int, nargs="+", default=_TASKS, help="tasks in each request, few to many")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    bypass_proxies()
    started_at = time.monotonic()
    photos = [_photo(seed) for seed in range(_PHOTOS)]
    sizes = [len(photo) / 1e6 for photo in photos]
    print(f"{len(photos)} photographs of {min(sizes):.1f} to {max(sizes):.1f} MB", flush=True)
    with tempfile.TemporaryDirectory(prefix="memory-") as folder, image_server(photos) as images_url:
        runs = [_measure(count, images_url, Path(folder) / f"{count}.log") for count in options.tasks]
    problems = _problems(runs)
    if not options.no_report:
        _draw(runs, _PLOT)
        write_section("memory", _section(runs, photos, problems, time.monotonic() - started_at))
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if problems else 0)


def _photo(seed: int) -> bytes:
    """A JPEG with the detail and the noise of a camera's; every third stands on its side, by its EXIF."""
    scene = Image.fromarray(draw_scene(seed).image).resize(_SIZE_WH, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).integers(-8, 9, (_SIZE_WH[1], _SIZE_WH[0], 1), np.int16)
    photo = Image.fromarray(np.clip(np.asarray(scene) + noise, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6 if seed % 3 == 2 else 1
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=90 + seed % 3, exif=exif)
    return file.getvalue()


def _measure(count: int, images_url: str, log: Path) -> Run:
    """Send one request of so many tasks to a new backend, and watch it until each has been answered."""
    tasks: list[Task] = [{"id": number, "data": {"image": f"{images_url}/{number}.jpg"}} for number in range(count)]
    with backend_server(pick_port(0), _ENVIRONMENT, log) as server, ThreadPoolExecutor(1) as pool:
        wait_until_ready(server.url)
        samples = [_look(server)]
        began_at = time.monotonic()
        missing = _watch(server, pool.submit(_click, server.url, tasks), samples)
        work_s = time.monotonic() - began_at
        if missing:  # the next click: for what the first answer couldn't wait for
            missing = _watch(server, pool.submit(_click, server.url, missing), samples)
        time.sleep(_REST_S)
        samples.append(_look(server))
    run = Run(count, samples, count - len(missing), work_s)
    print(" | ".join(_row(run)), flush=True)
    return run


def _click(backend_url: str, tasks: Sequence[Task]) -> list[Task]:
    """Ask for these tasks in one request; those that miss their prediction then."""
    results = predict(backend_url, tasks, _PROJECT)
    return [task for task, result in zip(tasks, results, strict=True) if result == []]


def _watch(server: BackendServer, click: Future[list[Task]], samples: list[Sample]) -> list[Task]:
    """Look at the backend until a click is answered, and no work goes on behind it; the click's result."""
    samples.append(_look(server))
    while not click.done() or samples[-1].left:
        samples.append(_look(server))
        if len(samples) % _LOOKS_UNTIL_TOLD == 0:
            print(f"{samples[-1].done} done, {samples[-1].left} left, {samples[-1].megabytes:.0f} MB", flush=True)
    return click.result()


def _look(server: BackendServer) -> Sample:
    """Look for half a second."""
    megabytes = 0.0
    for _ in range(_LOOKS_AT_MEMORY):
        megabytes = max(megabytes, held_megabytes(server))
        time.sleep(_LOOK_EVERY_S / _LOOKS_AT_MEMORY)
    jobs = work(server.url)
    return Sample(
        megabytes,
        done=sum(job["predicted"] + job["failed"] for job in jobs),
        left=sum(job["waiting"] + job["running"] for job in jobs),
    )


def _problems(runs: Sequence[Run]) -> list[str]:
    problems = [
        f"{run.tasks - run.predicted} of {run.tasks} tasks have no prediction"
        for run in runs
        if run.predicted < run.tasks
    ]
    if len(runs) > 1:
        before, largest = runs[-2:]
        growth = largest.peak_megabytes / before.peak_megabytes - 1
        if growth > _TOLERANCE:
            problems.append(
                f"the peak of {largest.tasks} tasks is {growth:.0%} above that of {before.tasks}, "
                f"more than {_TOLERANCE:.0%}"
            )
    return problems


def _row(run: Run) -> list[str]:
    return [
        f"{run.tasks:,}",
        f"{run.predicted:,}",
        f"{run.idle_megabytes:.0f} MB",
        f"{run.peak_megabytes:.0f} MB",
        f"{run.end_megabytes:.0f} MB",
        f"{run.tasks / run.work_s:.1f}",
    ]


def _section(runs: Sequence[Run], photos: Sequence[bytes], problems: Sequence[str], took_s: float) -> str:
    sizes = [len(photo) / 1e6 for photo in photos]
    head = ["tasks", "predicted", "before", "peak", "at the end", "images per second"]
    return "\n".join(
        [
            f"![Memory by images done, a curve for each of {len(runs)} requests](../images/{_PLOT.name})",
            "",
            made_by("memory", took_s),
            "",
            f"Each row is one `/predict` request to a backend just started (gunicorn, the demo's weights at "
            f"{_ENVIRONMENT['MODEL_IMAGE_SIZE']} pixels, on the CPU). Its tasks are photographs of "
            f"{_SIZE_WH[0]} x {_SIZE_WH[1]} pixels, JPEGs of {min(sizes):.1f} to {max(sizes):.1f} MB from an HTTP "
            f"server, some of them turned by EXIF. Decoded, one takes {_SIZE_WH[0] * _SIZE_WH[1] * 3 / 1e6:.0f} MB; "
            f"all of the largest request's would take {runs[-1].tasks * _SIZE_WH[0] * _SIZE_WH[1] * 3 / 1e9:.0f} GB. "
            f"Memory is what all processes of the backend hold (RSS), looked at every "
            f"{_LOOK_EVERY_S / _LOOKS_AT_MEMORY:g} s, from before the request until the next click has been answered "
            "with what the first answer couldn't wait for.",
            "",
            table(head, [_row(run) for run in runs]),
            "",
            f"The run fails where a task has no prediction in the end, or where the peak of the largest request is "
            f"more than {_TOLERANCE:.0%} above that of the one before: {len(problems)} failures.",
        ]
    )


def _draw(runs: Sequence[Run], path: Path) -> None:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for run in runs:
        working = [sample for sample in run.samples if sample.done]
        axes.plot(
            [sample.done for sample in working],
            [sample.megabytes for sample in working],
            label=f"{run.tasks:,} tasks, {run.peak_megabytes:.0f} MB at most",
            linewidth=1.4,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images done (12 megapixels each)")
    axes.set_ylabel("memory of the backend (RSS), MB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
