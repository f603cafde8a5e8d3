"""Is another checkout of the backend faster? Both are asked by turns: `python -m benchmarks.against ../other`.

A machine that others use, too, slows both down alike, so the ratio of each pair says more than seconds do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil

from benchmarks.speed_client import IMAGE_SIZES, Client
from benchmarks.speed_photos import MEDIUM, make_photos
from benchmarks.speed_server import PLAIN, WITH_ETAG, photo_server
from tests.harness.bulk import Task
from tests.harness.report import table
from tests.harness.stack import ROOT, BackendServer, bypass_proxies

_FRESH_TASKS, _REPEATED_TASKS = 100, 200


def main() -> None:
    """Measure, and print a table."""
    options = _parse_options()
    bypass_proxies()
    with tempfile.TemporaryDirectory(prefix="against-") as name, ExitStack() as running:
        folder = Path(name)
        make_photos(folder / "photos", [MEDIUM])
        client = Client(folder, running.enter_context(photo_server(folder / "photos")), {})
        backends = [
            running.enter_context(client.backend_of(checkout, options.weights)) for checkout in (ROOT, options.other)
        ]
        rows = _measure(client, backends, options.pairs)
    print(table(["1 MP", "here", "there", "here / there", "quartiles", "CPU here", "CPU there"], rows))
    for problem in client.problems:
        print(f"WRONG: {problem}")
    raise SystemExit(1 if client.problems else 0)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the speed with that of another checkout.")
    parser.add_argument("other", type=Path, help="the other checkout; `git worktree add ../other <commit>` makes one")
    parser.add_argument("--weights", choices=IMAGE_SIZES, default="640", help="the model's input size, in pixels")
    parser.add_argument("--pairs", type=int, default=20, help="how often both are asked (%(default)s)")
    return parser.parse_args()


def _measure(client: Client, backends: Sequence[BackendServer], pairs: int) -> list[list[str]]:
    def compare(name: str, make_tasks: Callable[[], list[Task]], count: int) -> list[str]:
        took_s: list[list[float]] = [[], []]
        before_s = [_cpu_s(backend) for backend in backends]
        for number in range(count):
            tasks = make_tasks()
            for which in (0, 1) if number % 2 else (1, 0):  # neither is always the one that the other warmed up for
                took_s[which].append(client.ask(backends[which], tasks).took_s)
        cpu_s = [(_cpu_s(backend) - before) / count for backend, before in zip(backends, before_s, strict=True)]
        return _row(name, took_s, cpu_s)

    for backend in backends:
        client.warm_up(backend, MEDIUM)
    rows = [
        compare(f"{_FRESH_TASKS} new images", lambda: client.tasks(MEDIUM, _FRESH_TASKS), pairs),
        compare("one new image", lambda: client.tasks(MEDIUM, 1), 6 * pairs),
    ]
    for name, mode in (("with an ETag", WITH_ETAG), ("without a validator", PLAIN)):
        tasks = client.tasks(MEDIUM, _REPEATED_TASKS, mode)
        for backend in backends:
            client.ask(backend, tasks)
        rows.append(compare(f"{_REPEATED_TASKS} images again, {name}", partial(list, tasks), 2 * pairs))
    return rows


def _row(name: str, took_s: Sequence[Sequence[float]], cpu_s: Sequence[float]) -> list[str]:
    lower, median, upper = statistics.quantiles(
        [here / there for here, there in zip(*took_s, strict=True)], n=4, method="inclusive"
    )
    here_ms, there_ms = (f"{1000 * statistics.median(each):.0f} ms" for each in took_s)
    cpu_ms = [f"{1000 * each:.0f} ms" for each in cpu_s]
    return [name, here_ms, there_ms, f"{median:.3f}", f"{lower:.3f} to {upper:.3f}", *cpu_ms]


def _cpu_s(backend: BackendServer) -> float:
    """The processor time that it took until now, in seconds, with its children's."""
    process = psutil.Process(backend.process.pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    main()
