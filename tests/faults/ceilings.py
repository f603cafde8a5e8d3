"""Requests of more bytes than there is room for, with a short deadline: all are answered, and memory has a ceiling."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.faults.backend import ANSWER_WITHIN_S, Backend, Outcome, wait_until
from tests.faults.images import data_address, photo_with_comment
from tests.faults.kinds import image_task
from tests.harness.bulk import work
from tests.harness.studio_client import metric
from tests.harness.talking_server import be_silent, talking_server

_MAX_HELD_MEGABYTES = 100
_DEADLINE_S = 0.5
CEILINGS_ENVIRONMENT = {
    "MODEL_NAME": "demo",
    "MODEL_IMAGE_SIZE": "960",  # no machine predicts 40 by the deadline
    "DEVICE": "cpu",
    "CACHE_MEGABYTES": "0",  # the same image again and again
    "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
    "MAX_REQUEST_MEGABYTES": "8",
    "MAX_HELD_MEGABYTES": str(_MAX_HELD_MEGABYTES),
    "PREDICT_DEADLINE_SECONDS": str(_DEADLINE_S),
}
_REQUESTS, _AT_ONCE = 30, 5  # as many as may wait for predictions (THREADS)
_LONG_ADDRESS, _LONG_ADDRESSES = 8_000, 900  # 7.2 MB a request, 216 MB in all
_KEPT_REQUESTS, _KEPT_TASKS = 3, 40
_KEPT_MEGABYTES = 1.0  # of 15 MB that were sent
_DONE_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.05


def inject_large_bodies(backend: Backend) -> Iterator[Outcome]:
    """Send more bytes than there is room for, of tasks that wait, and of tasks whose results are kept."""
    yield _send_what_waits(backend)
    yield _send_what_is_kept(backend)


def _send_what_waits(backend: Backend) -> Outcome:
    """Tasks with long addresses whose images hang: no request's tasks are done by its deadline, nor later."""
    outcome = Outcome(
        f"requests of 7 MB whose images hang, {_AT_ONCE} at once, with a deadline of {_DEADLINE_S:g} s and "
        f"MAX_HELD_MEGABYTES={_MAX_HELD_MEGABYTES}",
        _REQUESTS,
        lost="the predictions of what had no room, until the next click",
    )
    with talking_server(be_silent) as silent:

        def send(number: int) -> float:
            address = f"{silent.url}/a.jpg?{'x' * _LONG_ADDRESS}"
            tasks = [image_task(address + str(n), backend.new_task_id()) for n in range(_LONG_ADDRESSES)]
            started_at = time.monotonic()
            if backend.predict(tasks, f"large {number}") != [[]] * _LONG_ADDRESSES:  # which checks the length
                outcome.problems.append("an image that hangs has a prediction")
            return time.monotonic() - started_at

        before = backend.footprint().megabytes
        with _watched(backend) as megabytes, ThreadPoolExecutor(_AT_ONCE) as callers:
            # The first one alone has room in any case, and waits.
            outcome.slowest_s = max(send(0), *callers.map(send, range(1, _REQUESTS)))
        kept = round(sum(each["waiting"] + each["running"] for each in work(backend.url)) / _LONG_ADDRESSES)
    more = max(megabytes) - before
    outcome.came_out[f"`[]` for each task; the tasks of {kept} wait, memory grew by {more} MB"] = 1
    if not 0 < kept < _REQUESTS:
        outcome.problems.append(f"the tasks of {kept} requests wait: the ceiling wasn't met")
    if more > _MAX_HELD_MEGABYTES:
        outcome.problems.append(f"memory grew by {more} MB")
    if outcome.slowest_s > ANSWER_WITHIN_S:
        outcome.problems.append(f"an answer took {outcome.slowest_s:.1f} s")
    if not backend.predicts():
        outcome.problems.append("beside what waits, a good image is not predicted")
    return outcome


def _send_what_is_kept(backend: Backend) -> Outcome:
    """Tasks with their images in them: when they are done, their results alone are held, until somebody asks."""
    outcome = Outcome(
        f"requests of 5 MB with their {_KEPT_TASKS} images in them, and the same deadline; a second click when all is "
        "done",
        _KEPT_REQUESTS,
    )
    bodies = {
        f"kept {number}": [
            image_task(data_address(photo_with_comment(f"{number} {n}")), backend.new_task_id())
            for n in range(_KEPT_TASKS)
        ]
        for number in range(_KEPT_REQUESTS)
    }

    def click() -> list[Any]:
        results = []
        for project, tasks in bodies.items():
            started_at = time.monotonic()
            results += backend.predict(tasks, project)
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - started_at)
        return results

    before_megabytes = metric(backend.url, "yolo_held_bytes") / 1e6
    first = click()
    if not wait_until(lambda: not any(_is_at_work(backend, project) for project in bodies), _DONE_WITHIN_S):
        outcome.problems.append(f"{_DONE_WITHIN_S:g} s later, the work is not done")
    kept_megabytes = metric(backend.url, "yolo_held_bytes") / 1e6 - before_megabytes
    results = [new or old for new, old in zip(click(), first, strict=True)]
    predicted = sum(result != [] for result in results)
    outcome.came_out[f"{predicted} of {len(results)} predicted at the second click"] = 1
    if sum(result != [] for result in first) == len(first):
        outcome.problems.append("all were predicted at the first click: nothing was kept")
    if predicted < len(results):
        outcome.problems.append("after the second click, some are not predicted")
    if kept_megabytes > _KEPT_MEGABYTES:
        outcome.problems.append(f"the results of {len(results)} tasks take {kept_megabytes:.1f} MB")
    return outcome


def _is_at_work(backend: Backend, name: str) -> bool:
    return any(each["waiting"] + each["running"] for each in work(backend.url) if each["project"] == name)


@contextmanager
def _watched(backend: Backend) -> Iterator[list[int]]:
    """The megabytes of memory that the backend holds, at each moment of the block."""
    seen: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_LOOK_EVERY_S):
            seen.append(backend.footprint().megabytes)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
