"""The cases of the speed benchmark."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.speed_client import CLIENTS, Asked, Client
from benchmarks.speed_limits import ModelAlone
from benchmarks.speed_results import ALONE, TOGETHER, UNDER_BULK, Delay, Growth, Latency, Repeat, Throughput
from benchmarks.speed_server import LATE, LATE_BY_S
from tests.harness.bulk import Task, held_megabytes, work
from tests.harness.stack import BackendServer

_THRESHOLDS = (0.3, 0.35, 0.4)
_LOOK_EVERY_S = 0.2
_UNDER_WAY = 10


@dataclass(frozen=True)
class Extent:
    """How much is measured: tasks and repeats by case, and the seconds of each look at the model alone."""

    limit_s: float
    tasks: Mapping[str, int]
    loop_tasks: Mapping[str, int]
    repeats: Mapping[str, int]
    lone_tasks: int
    bulk_tasks: int
    growth_tasks: Sequence[int]
    around_requests: int
    repeat_tasks: int


@dataclass(frozen=True)
class Bench:
    """What every case needs; `weights` and `model` are the same ones, with and without a backend."""

    client: Client
    extent: Extent
    weights: str
    model: ModelAlone

    def limits(self) -> tuple[float, float]:
        """What the model alone does now, in images per second: as Ultralytics and as the backend exports it."""
        return self.model.rates(self.extent.limit_s)

    def one_image_s(self) -> float:
        """What one image takes in the model alone now."""
        return self.model.one_image_s(self.extent.limit_s)


def throughput(
    bench: Bench,
    case: str,
    backend: BackendServer,
    loop: BackendServer | None = None,
    *,
    size: str | None = None,
) -> Throughput:
    """Many tasks in one request, between two looks at the model alone, and the hand-written loop after it.

    `size` is the photographs' where the case has another name.
    """
    client, size = bench.client, size or case
    count, loop_count = bench.extent.tasks[case], bench.extent.loop_tasks.get(case, 0)
    asked: list[Asked] = []
    looped: list[Asked] = []
    limits: list[tuple[float, float]] = []
    own_limits: list[tuple[float, float]] = []
    server_s = 0.0
    for _ in range(bench.extent.repeats.get(case, 1)):
        before, own_before = bench.limits()
        client.warm_up(backend, size)
        tasks = client.tasks(size, count)
        server_began_s = client.server.cpu_s()
        asked.append(client.ask(backend, tasks))
        server_s += client.server.cpu_s() - server_began_s
        after, own_after = bench.limits()
        limits.append((before, after))
        own_limits.append((own_before, own_after))
        if loop:
            client.warm_up(loop, size)
            looped.append(client.ask(loop, client.tasks(size, loop_count)))
    return Throughput(
        case=case,
        weights=bench.weights,
        tasks=count,
        images_per_s=[each.images_per_s for each in asked],
        limits=limits,
        own_limits=own_limits,
        loop=[each.images_per_s for each in looped],
        boxes_per_image=_boxes_per_image(asked),
        loop_boxes_per_image=_boxes_per_image(looped),
        server_cpu_ms=server_s / (count * len(asked)) * 1e3,
    )


def delay(bench: Bench, backend: BackendServer, size: str) -> Delay:
    """Images from a server that is late with each, in turn with one that isn't."""
    client, count = bench.client, bench.extent.tasks[size]
    client.warm_up(backend, size)
    plain = [client.ask(backend, client.tasks(size, count)).images_per_s]
    late = []
    for _ in range(bench.extent.repeats.get(size, 1)):
        client.warm_up(backend, size, LATE)
        late.append(client.ask(backend, client.tasks(size, count, LATE)).images_per_s)
        client.warm_up(backend, size)
        plain.append(client.ask(backend, client.tasks(size, count)).images_per_s)
    return Delay(LATE_BY_S, late, [statistics.mean(pair) for pair in itertools.pairwise(plain)])


def latencies(bench: Bench, backend: BackendServer, size: str) -> list[Latency]:
    """Requests of one task each: one after the other, from many clients at once, and under a bulk request."""
    cases = {ALONE: _lone_alone, TOGETHER: _lone_together, UNDER_BULK: _lone_under_bulk}
    found = []
    for case, measure in cases.items():
        before = bench.one_image_s()
        bench.client.warm_up(backend, size)
        seconds = measure(bench, backend, size)
        found.append(Latency(case, seconds, [before, bench.one_image_s()]))
    return found


def _lone(bench: Bench, backend: BackendServer, task: Task) -> float:
    return bench.client.ask(backend, [task]).took_s


def _lone_alone(bench: Bench, backend: BackendServer, size: str) -> list[float]:
    return [_lone(bench, backend, task) for task in bench.client.tasks(size, bench.extent.lone_tasks)]


def _lone_together(bench: Bench, backend: BackendServer, size: str) -> list[float]:
    tasks = bench.client.tasks(size, CLIENTS * (bench.extent.lone_tasks // 4))
    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(lambda task: _lone(bench, backend, task), tasks))


def _lone_under_bulk(bench: Bench, backend: BackendServer, size: str) -> list[float]:
    tasks = bench.client.tasks(size, bench.extent.bulk_tasks)
    seconds: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(bench.client.ask, backend, tasks)
        while not (bulk.done() or _is_under_way(backend)):
            time.sleep(_LOOK_EVERY_S)
        while not bulk.done():
            seconds.append(_lone(bench, backend, bench.client.tasks(size, 1)[0]))
        bulk.result()
    return seconds[:-1]  # the bulk request ended during the last one


def growth(bench: Bench, count: int, size: str) -> Growth:
    """One request of so many tasks to a new backend, with small ones before and after."""
    client, small = bench.client, bench.extent.growth_tasks[0]

    def ask(tasks: int) -> float:
        return 1 / client.ask(backend, client.tasks(size, tasks)).images_per_s

    with client.backend(bench.weights) as backend:
        client.warm_up(backend, size)
        idle_megabytes = held_megabytes(backend)
        around = [ask(small) for _ in range(bench.extent.around_requests)]
        with _watched(backend) as megabytes:
            seconds_per_image = ask(count)
        around += [ask(small) for _ in range(bench.extent.around_requests)]
    return Growth(count, seconds_per_image, small, around, idle_megabytes, max(megabytes))


def repeat(bench: Bench, kind: str, backend: BackendServer, tasks: Sequence[Task]) -> Repeat:
    """The same tasks again, for other projects, and with other thresholds."""
    client = bench.client
    first = client.ask(backend, tasks)
    again = [client.ask(backend, tasks) for _ in _THRESHOLDS]
    if any(each.boxes != first.boxes for each in again):
        client.problems.append(f"{kind}: {first.boxes} boxes at first, then {[each.boxes for each in again]}")
    other = [client.ask(backend, tasks, threshold) for threshold in _THRESHOLDS]
    return Repeat(kind, len(tasks), first.took_s, [each.took_s for each in again], [each.took_s for each in other])


def _is_under_way(backend: BackendServer) -> bool:
    return any(job["running"] and job["predicted"] > _UNDER_WAY for job in work(backend.url))


def _boxes_per_image(asked: Sequence[Asked]) -> float:
    return sum(each.boxes for each in asked) / max(1, sum(each.images for each in asked))


@contextmanager
def _watched(backend: BackendServer) -> Iterator[list[float]]:
    """What the backend's processes hold meanwhile, looked at again and again."""
    megabytes = [held_megabytes(backend)]
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_EVERY_S):
            megabytes.append(held_megabytes(backend))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield megabytes
    finally:
        is_over.set()
        watcher.join()
