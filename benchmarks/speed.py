"""The backend's speed, beside the model alone and a hand-written loop on the same images: `python -m benchmarks.speed`.

The tables and the plot of a whole run stand in docs/journal/speed.md, its numbers in benchmarks/results. A target that
isn't met is told; only an answer without its predictions makes it exit with 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Collection, Set
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import speed_cases as cases
from benchmarks.speed_cases import Bench, Extent
from benchmarks.speed_client import IMAGE_SIZES, Client
from benchmarks.speed_limits import ModelAlone
from benchmarks.speed_photos import (
    LARGE,
    MEDIUM,
    MIXED,
    SIZES_WH,
    SMALL,
    WEIGHTS,
    PhotosMissingError,
    make_photos,
    mean_kilobytes,
    photo_files,
)
from benchmarks.speed_report import REPORT, draw, section, write_json
from benchmarks.speed_results import INLINE, LARGE_FAST, UPLOADS, Results, ratios
from benchmarks.speed_server import PLAIN, TOKEN, UPLOAD, WITH_ETAG, photo_server
from tests.harness.report import write_section
from tests.harness.stack import BackendServer, bypass_proxies

LIMITS, LATENCY, GROWTH, DELAY, REPEAT = "limits", "latency", "growth", "delay", "repeat"
# By what the command line calls them; the first three are measured with both sets of weights.
CASES = {
    "limits": LIMITS, "1mp": MEDIUM, "12mp": LARGE, "fast": LARGE_FAST, "0.3mp": SMALL, "mixed": MIXED, "delay": DELAY,
    "latency": LATENCY, "repeat": REPEAT, "growth": GROWTH,
}  # fmt: skip
_FULLER = 200  # tasks of 12 megapixels, with --full
_TO_MEASURE = Extent(
    limit_s=3.0,
    tasks={SMALL: 1000, MEDIUM: 200, LARGE: 100, LARGE_FAST: 100, MIXED: 200},
    loop_tasks={MEDIUM: 60, LARGE: 24},
    repeats={MEDIUM: 3, LARGE: 3, LARGE_FAST: 3},
    lone_tasks=100,
    bulk_tasks=400,
    growth_tasks=(100, 1000, 10_000),
    around_requests=5,
    repeat_tasks=200,
)
_TO_TRY = Extent(
    limit_s=0.5,
    tasks={SMALL: 48, MEDIUM: 32, LARGE: 16, LARGE_FAST: 16, MIXED: 32},
    loop_tasks={MEDIUM: 8, LARGE: 4},
    repeats={},
    lone_tasks=8,
    bulk_tasks=64,
    growth_tasks=(16, 100),
    around_requests=1,
    repeat_tasks=32,
)


def main() -> None:
    """Measure, print and write. Exits with 1 where a task has no prediction."""
    options = _parse_options()
    settings = dict(pair.split("=", 1) for pair in options.settings)
    extent = _TO_TRY if options.quick else _TO_MEASURE
    if options.full:
        extent = replace(extent, tasks={**extent.tasks, LARGE: _FULLER, LARGE_FAST: _FULLER})
    bypass_proxies()
    started_at = time.monotonic()
    results = Results()
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        try:
            make_photos(folder / "photos", SIZES_WH)
        except PhotosMissingError as error:
            sys.exit(str(error))
        results.file_kilobytes = {size: mean_kilobytes(photo_files(folder / "photos", size)) for size in SIZES_WH}
        with photo_server(folder / "photos") as server:
            client = Client(folder, server, settings)
            _measure(results, client, extent, {CASES[case] for case in options.only}, options.weights)
        results.problems = client.problems
    took_s = time.monotonic() - started_at
    with_target = ratios(results)
    print(section(results, with_target, took_s))
    is_whole = options.only == list(CASES) and options.weights == list(IMAGE_SIZES) and not options.quick
    if is_whole and not options.no_report:
        write_json(results, with_target, settings, took_s)
        draw(results)
        write_section("bench", section(results, with_target, took_s), report=REPORT)
    for problem in results.problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if results.problems else 0)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the backend's speed, and what bounds it.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument(
        "--weights", nargs="+", choices=IMAGE_SIZES, default=list(IMAGE_SIZES), help="the model's input size, in pixels"
    )
    parser.add_argument(
        "--with", dest="settings", metavar="SETTING=VALUE", nargs="+", default=[], help="settings of the backend"
    )
    parser.add_argument("--quick", action="store_true", help="few tasks, to try it out: its numbers mean nothing")
    parser.add_argument("--full", action="store_true", help=f"{_FULLER} tasks of 12 megapixels")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ and benchmarks/results alone")
    return parser.parse_args()


def _measure(
    results: Results, client: Client, extent: Extent, chosen: Set[str], weights_chosen: Collection[str]
) -> None:
    """Measure the chosen cases, with the chosen weights."""
    photos = photo_files(client.folder / "photos", MEDIUM)
    for weights in weights_chosen:
        _tell(f"the model alone, at {weights}")
        model = ModelAlone(WEIGHTS, IMAGE_SIZES[weights], photos, client.folder / weights)
        results.limits[weights] = model.limits(extent.limit_s, with_torch=LIMITS in chosen)
        bench = Bench(client, extent, weights, model)
        if chosen & {MEDIUM, LARGE}:
            _measure_beside_loop(bench, chosen, results)
        if weights == "640":
            _measure_at_640(bench, chosen, results)
        elif weights == "320" and GROWTH in chosen:
            for count in extent.growth_tasks:
                _tell(f"{count:,} tasks in one request")
                results.growths.append(cases.growth(bench, count, SMALL))


def _measure_beside_loop(bench: Bench, chosen: Set[str], results: Results) -> None:
    with bench.client.backend(bench.weights) as backend, bench.client.handwritten_backend(bench.weights) as loop:
        results.engines[bench.weights] = bench.client.engine(backend)
        for case in (MEDIUM,) if bench.weights == "960" else (MEDIUM, LARGE):
            if case in chosen:
                _tell(f"{case} at {bench.weights}")
                results.throughputs.append(cases.throughput(bench, case, backend, loop))


def _measure_at_640(bench: Bench, chosen: Set[str], results: Results) -> None:
    client = bench.client
    with ExitStack() as running:
        if chosen & {SMALL, MIXED, DELAY, LATENCY, REPEAT}:
            backend = running.enter_context(client.backend(bench.weights))
        for case in (SMALL, MIXED):
            if case in chosen:
                _tell(case)
                results.throughputs.append(cases.throughput(bench, case, backend))
        if DELAY in chosen:
            _tell("an image server that is late")
            results.delays.append(cases.delay(bench, backend, MEDIUM))
        if LATENCY in chosen:
            _tell("one-task requests")
            results.latencies += cases.latencies(bench, backend, MEDIUM)
        if REPEAT in chosen:
            _tell("the same tasks again")
            _measure_repeats(bench, backend, results)
    if LARGE_FAST in chosen:
        _tell(LARGE_FAST)
        with client.backend(bench.weights, DECODE="fast") as backend:
            results.throughputs.append(cases.throughput(bench, LARGE_FAST, backend, size=LARGE))


def _measure_repeats(bench: Bench, backend: BackendServer, results: Results) -> None:
    client, count = bench.client, bench.extent.repeat_tasks
    client.warm_up(backend, MEDIUM)
    for kind, tasks in {
        "addresses with an ETag": client.tasks(MEDIUM, count, WITH_ETAG),
        "addresses without a validator": client.tasks(MEDIUM, count, PLAIN),
        INLINE: client.inline_tasks(MEDIUM, count),
    }.items():
        results.repeats.append(cases.repeat(bench, kind, backend, tasks))
    label_studio = {"LABEL_STUDIO_URL": client.server.url, "LABEL_STUDIO_API_KEY": TOKEN}
    with client.backend(bench.weights, **label_studio) as connected:
        client.warm_up(connected, MEDIUM, UPLOAD)
        results.repeats.append(cases.repeat(bench, UPLOADS, connected, client.tasks(MEDIUM, count, UPLOAD)))


def _tell(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
