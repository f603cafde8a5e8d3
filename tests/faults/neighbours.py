"""Projects and people whose images hang, beside others who should not notice; with the time-outs that people have."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import requests

from tests.faults.backend import Backend, Outcome, UnexpectedAnswerError, wait_until
from tests.faults.callers import request_of
from tests.faults.kinds import PREDICTED, image_task
from tests.harness.bulk import LABEL_CONFIG
from tests.harness.talking_server import TalkingServer, be_silent, talking_server

# No time-out among them: an image has 30 s, and a request 50 s. The silent server hangs up sooner, after 20 s.
NEIGHBOURS_ENVIRONMENT = {
    "MODEL_NAME": "demo",
    "MODEL_IMAGE_SIZE": "320",
    "DEVICE": "cpu",
    "CACHE_MEGABYTES": "0",  # the same image again and again
    "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
}
NO_BOXES = "no boxes"
_OWN_TASKS, _HANGING_TASKS = 150, 300
_PLACES_FOR_IMAGES = 16
_PLACES_FOR_REQUESTS = 6  # THREADS (8) less two
_PEOPLE = 8
_STAYS_S = 0.3
PERSON_WITHIN_S = 1.5
_HUNG_UP_WITHIN_S = 2.0  # half a second, and a busy machine
_ASKED_WITHIN_S = 10.0


def inject_neighbours(backend: Backend) -> Iterator[Outcome]:
    """Let images of other projects and people hang, and see what comes out of one's own."""
    alone_s, _ = _do_own_work(backend)  # the first time, before all is warm
    alone_s, _ = _do_own_work(backend)
    for comes_first in (True, False):
        yield _beside_a_job_that_hangs(backend, alone_s, comes_first=comes_first)
    yield _after_people_who_left(backend)
    yield _beside_people_who_wait(backend, _PLACES_FOR_REQUESTS - 1)
    yield _beside_people_who_wait(backend, _PLACES_FOR_REQUESTS)


def _do_own_work(backend: Backend) -> tuple[float, int]:
    """How long one's own job takes, and how many of its tasks have the boxes that they should have."""
    tasks = [backend.good_task() for _ in range(_OWN_TASKS)]
    started_at = time.monotonic()
    results = backend.predict(tasks, "own")
    return time.monotonic() - started_at, sum(map(backend.is_good, results))


def _beside_a_job_that_hangs(backend: Backend, alone_s: float, *, comes_first: bool) -> Outcome:
    order = "began before" if comes_first else "begins during"
    outcome = Outcome(
        f"a neighbour's {_HANGING_TASKS} images hang; its job {order} one's own of {_OWN_TASKS} tasks",
        1,
        lost="the neighbour's own predictions",
    )
    with ThreadPoolExecutor(1) as neighbour, talking_server(be_silent) as silent:  # whose end is the end of its job

        def ask() -> None:
            hanging = [image_task(f"{silent.url}/{n}.jpg", backend.new_task_id()) for n in range(_HANGING_TASKS)]
            with contextlib.suppress(UnexpectedAnswerError, requests.RequestException):
                backend.predict(hanging, "neighbour", timeout_s=120)

        def ask_a_moment_later() -> None:
            time.sleep(alone_s / 10)
            ask()

        neighbour.submit(ask if comes_first else ask_a_moment_later)
        if comes_first and not _are_asked(silent, _PLACES_FOR_IMAGES):
            outcome.problems.append("the neighbour's images didn't hang")
        outcome.slowest_s, good = _do_own_work(backend)
        if not comes_first and not _are_asked(silent, 1):
            outcome.problems.append("the neighbour's images didn't hang")
    outcome.came_out[f"{good} of {_OWN_TASKS} predicted (alone in {alone_s:.1f} s)"] = 1
    if good < _OWN_TASKS:
        outcome.problems.append(f"{good} of {_OWN_TASKS} have the boxes that they should have")
    if outcome.slowest_s > 2 * alone_s + 2:
        outcome.problems.append(f"one's own work took {outcome.slowest_s:.1f} s, and {alone_s:.1f} s alone")
    return outcome


def _after_people_who_left(backend: Backend) -> Outcome:
    outcome = Outcome(
        f"a person opens a picture that hangs, and leaves after {_STAYS_S:g} s; another one opens a good picture",
        _PEOPLE,
        lost="nothing of the other one's",
    )
    with talking_server(be_silent) as silent:
        for _ in range(_PEOPLE):
            with _person_at(backend, silent):
                if not _are_asked(silent, 1):
                    outcome.problems.append("the picture didn't hang")
                time.sleep(_STAYS_S)
            _let_another_ask(backend, outcome)
        if not all(silent.closed.acquire(timeout=_HUNG_UP_WITHIN_S) for _ in range(_PEOPLE)):
            outcome.problems.append(f"{_HUNG_UP_WITHIN_S:g} s later, the connections to that server were not hung up")
    _expect(outcome, PREDICTED)
    return outcome


def _beside_people_who_wait(backend: Backend, count: int) -> Outcome:
    """While there are places for requests, another person is answered with boxes; without one, at once and without."""
    is_full = count == _PLACES_FOR_REQUESTS
    outcome = Outcome(
        f"{count} people wait for pictures that hang{', as many as may (THREADS)' if is_full else ''}; "
        "another one opens a good picture",
        _PEOPLE,
        lost="their boxes, until they open it again" if is_full else "nothing of the other one's",
    )
    with contextlib.ExitStack() as waiting, talking_server(be_silent) as silent:
        for _ in range(count):
            waiting.enter_context(_person_at(backend, silent))
        if not _are_asked(silent, count):
            outcome.problems.append("the pictures didn't hang")
        for _ in range(_PEOPLE):
            _let_another_ask(backend, outcome)
        _expect(outcome, NO_BOXES if is_full else PREDICTED)
        waiting.close()
        if not all(silent.closed.acquire(timeout=_HUNG_UP_WITHIN_S) for _ in range(count)):
            outcome.problems.append(f"{_HUNG_UP_WITHIN_S:g} s later, the connections to that server were not hung up")
        if not wait_until(backend.predicts, _HUNG_UP_WITHIN_S):  # a place is free a little after its image is let go
            outcome.problems.append("when they have left, a good picture isn't predicted")
    return outcome


def _let_another_ask(backend: Backend, outcome: Outcome) -> None:
    started_at = time.monotonic()
    (result,) = backend.predict([backend.good_task()], "own")
    outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - started_at)
    outcome.came_out[PREDICTED if backend.is_good(result) else "other boxes" if result else NO_BOXES] += 1


def _expect(outcome: Outcome, expected: str) -> None:
    if set(outcome.came_out) != {expected}:
        outcome.problems.append(f"{dict(outcome.came_out)} came out, expected {expected}")
    if outcome.slowest_s > PERSON_WITHIN_S:
        outcome.problems.append(f"the other person waited {outcome.slowest_s:.1f} s")


@contextlib.contextmanager
def _person_at(backend: Backend, silent: TalkingServer) -> Iterator[None]:
    """Somebody has opened a task whose picture hangs, and leaves at the end of the block."""
    task = image_task(f"{silent.url}/a.jpg", backend.new_task_id())
    body = json.dumps({"tasks": [task], "label_config": LABEL_CONFIG, "project": "neighbour"}).encode()
    address = urlsplit(backend.url)
    with socket.create_connection((address.hostname, address.port), timeout=_ASKED_WITHIN_S) as connection:
        connection.sendall(request_of(body))
        yield


def _are_asked(silent: TalkingServer, count: int) -> bool:
    """Returns True once so many more images hang."""
    return all(silent.opened.acquire(timeout=_ASKED_WITHIN_S) for _ in range(count))
