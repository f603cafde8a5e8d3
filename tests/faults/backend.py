"""The real backend while things go wrong: what it answers, counts, logs, and holds of the machine."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.faults.images import data_address, photo_file
from tests.faults.kinds import (
    A_HANG,
    NO_ANSWER,
    PREDICTED,
    WITH_LEGACY_TOKEN,
    WITH_PERSONAL_TOKEN,
    WITH_REFUSED_TOKEN,
    Fault,
    image_task,
)
from tests.faults.servers import LEGACY_TOKEN, PERSONAL_TOKEN, REFUSED_PERSONAL_TOKEN, SECRETS, World
from tests.harness.bulk import LABEL_CONFIG, Task, backend_of
from tests.harness.stack import BackendServer

ENVIRONMENT = {
    "MODEL_NAME": "demo",
    "MODEL_IMAGE_SIZE": "320",
    "DEVICE": "cpu",
    "CACHE_MEGABYTES": "0",  # the same images again and again
    "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
    "IMAGE_TIMEOUT_SECONDS": "2",
    "MAX_IMAGE_MEGABYTES": "2",
    "MAX_IMAGE_MEGAPIXELS": "4",
    "MAX_REQUEST_MEGABYTES": "16",
    "PREDICT_DEADLINE_SECONDS": "30",
}
# A request with a fault in it is answered by then: the time for an image, and work on a busy machine of two cores.
ANSWER_WITHIN_S = 12.0
_BACK_WITHIN_S = 60.0
_REQUESTS_AT_ONCE = 4
_HEALTH_EVERY_S = 0.5
_HEALTH_TIMEOUT_S = 5.0
_SETTLE_S = 100.0  # a delivery to Label Studio looks for its answers that long
# What may stay: pooled connections, pages that the allocator keeps, threads of pools that grow to their limit.
MORE_MEGABYTES = 128
MORE_FILES = 16
MORE_THREADS = 8


class UnexpectedAnswerError(Exception):
    """The backend answered otherwise than its protocol says."""


@dataclass
class Outcome:
    """What came out of one fault, injected `times` times, and what a person loses by it."""

    name: str
    times: int
    came_out: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    lost: str = "nothing"
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Footprint:
    """What the backend's processes hold of the machine."""

    megabytes: int
    files: int
    threads: int

    def growth_since(self, before: Footprint) -> list[str]:
        """What grew more than it may."""
        limits = {"megabytes": MORE_MEGABYTES, "files": MORE_FILES, "threads": MORE_THREADS}
        return [
            f"{name} grew from {getattr(before, name)} to {getattr(self, name)}, by more than {more}"
            for name, more in limits.items()
            if getattr(self, name) - getattr(before, name) > more
        ]


class Backend:
    """A running backend, asked as Label Studio asks it."""

    def __init__(self, server: BackendServer, world: World) -> None:
        self.url = server.url
        self._log = server.log
        self._process = psutil.Process(server.process.pid)
        self._world = world
        self._task_ids = itertools.count(1)
        self._neighbours = [
            data_address(photo_file("PNG", seed=1)),
            f"{world.hostile.url}/good/neighbour.jpg",
        ]
        self._expected: list[Any] = []

    def prepare(self) -> None:
        """Wait for the model, introduce the projects' tokens, and ask for the good images alone."""
        wait_until(lambda: self._setup("0", "").ok, 120)
        for project, token in {
            WITH_PERSONAL_TOKEN: PERSONAL_TOKEN,
            WITH_LEGACY_TOKEN: LEGACY_TOKEN,
            WITH_REFUSED_TOKEN: REFUSED_PERSONAL_TOKEN,
        }.items():
            self._setup(project, token).raise_for_status()
        alone = [self.predict([image_task(address, self.new_task_id())]) for address in self._neighbours]
        self._expected = [results[0] for results in alone]
        if not all(len(_boxes(result)) > 1 for result in self._expected):
            raise UnexpectedAnswerError(f"the good images have too few boxes: {self._expected}")

    def fill_threads(self) -> None:
        """Let all pools of threads grow to their limits: many tasks that hang, in one request and alone."""
        tasks = [A_HANG.task(self._world, self.new_task_id()) for _ in range(46)]
        requests_of_tasks = [tasks[:40], *([task] for task in tasks[40:])]
        with ThreadPoolExecutor(len(requests_of_tasks)) as pool:
            list(pool.map(self.predict, requests_of_tasks))

    def new_task_id(self) -> int:
        """The id of a task that was not asked for before."""
        return next(self._task_ids)

    def predict(
        self, tasks: Sequence[Task], project: str = "0", timeout_s: float = 60, label_config: str = LABEL_CONFIG
    ) -> list[Any]:
        """Ask for predictions. Raises UnexpectedAnswerError and requests.RequestException."""
        body = {"tasks": list(tasks), "label_config": label_config, "project": project}
        response = requests.post(f"{self.url}/predict", json=body, timeout=timeout_s)
        if response.status_code != 200:
            raise UnexpectedAnswerError(f"/predict answers {response.status_code}: {response.text[:200]}")
        results = response.json()["results"]
        if len(results) != len(tasks):
            raise UnexpectedAnswerError(f"{len(tasks)} tasks have {len(results)} results")
        return list(results)

    def inject(self, fault: Fault, times: int | None = None) -> Outcome:
        """Ask some times for a task with this fault, and see what came out; by default as often as the fault says."""
        return (self._inject_alone if fault.spreads else self._inject_between)(fault, times or fault.times)

    def _inject_between(self, fault: Fault, times: int) -> Outcome:
        """Ask for a task with this fault between two good ones."""
        kinds_before = self.failure_kinds()
        asked: list[Task] = [fault.task(self._world, self.new_task_id()) for _ in range(times)]
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            answers = list(pool.map(lambda task: self._inject_once(task, fault.project), asked))
        came_out = self.failure_kinds() - kinds_before
        predicted = sum(answer.predicted for answer in answers)
        if predicted:
            came_out[PREDICTED] = predicted
        outcome = Outcome(fault.name, times, came_out, max(answer.took_s for answer in answers))
        if predicted < times:
            outcome.lost = "that task's prediction, for as long as the cause lasts"
        outcome.problems += [problem for answer in answers for problem in answer.problems]
        if not set(came_out) <= fault.outcomes:
            outcome.problems.append(f"{dict(outcome.came_out)} came out, expected {', '.join(sorted(fault.outcomes))}")
        if came_out.total() != times:
            outcome.problems.append(f"{times} were injected and {came_out.total()} came out")
        if (fault.answer or fault.mends_itself) and predicted < times:
            self._ask_again(fault, asked, outcome)
        return outcome

    def _inject_alone(self, fault: Fault, times: int) -> Outcome:
        """Ask for a task with this fault alone, and each time wait until a good one is predicted again."""
        outcome = Outcome(fault.name, times)
        back_after_s = 0.0
        for _ in range(times):
            kinds_before = self.failure_kinds()
            started_at = time.monotonic()
            try:
                is_predicted = self.ask_for(fault) != [[]]
                came_out = Counter({PREDICTED: 1}) if is_predicted else self.failure_kinds() - kinds_before
            except requests.ConnectionError:
                came_out = Counter({NO_ANSWER: 1})
            answered_at = time.monotonic()
            if not wait_until(self.predicts, _BACK_WITHIN_S):
                outcome.problems.append(f"{_BACK_WITHIN_S:g} s later, good images are not predicted")
            outcome.came_out += came_out
            outcome.slowest_s = max(outcome.slowest_s, answered_at - started_at)
            back_after_s = max(back_after_s, time.monotonic() - answered_at)
        outcome.lost = (
            "what was in the model, until the next click; "
            f"good images are predicted again within {math.ceil(back_after_s)} s"
        )
        if set(outcome.came_out) != fault.outcomes:
            outcome.problems.append(f"{dict(outcome.came_out)} came out, expected {', '.join(sorted(fault.outcomes))}")
        return outcome

    def ask_for(self, fault: Fault) -> list[Any]:
        """Ask for a task with this fault alone."""
        return self.predict([fault.task(self._world, self.new_task_id())], fault.project)

    def predicts(self) -> bool:
        """Is a good image predicted now, with the boxes that it should have?"""
        try:
            results = self.predict([self.good_task()])
        except UnexpectedAnswerError:
            return False
        return self.is_good(results[0])

    def good_task(self) -> Task:
        """A new task with a good image in it."""
        return image_task(self._neighbours[0], self.new_task_id())

    def is_good(self, result: Any) -> bool:
        """Returns True if a good task's result has the boxes that it should have."""
        return same_boxes(result, self._expected[0])

    def failure_kinds(self) -> Counter[str]:
        """How often each kind of failure was counted, by /metrics."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        counted = re.findall(r'^yolo_image_failures_total\{kind="(\w+)"\} ([\d.e+]+)$', text, re.MULTILINE)
        return Counter({kind: int(float(value)) for kind, value in counted})

    def health(self) -> requests.Response:
        """Ask for /health, as Label Studio does."""
        return requests.get(f"{self.url}/health", timeout=_HEALTH_TIMEOUT_S)

    def footprint(self) -> Footprint:
        """What the processes hold now."""
        processes = [self._process, *self._process.children(recursive=True)]
        return Footprint(
            megabytes=sum(process.memory_info().rss for process in processes) // 1_000_000,
            files=sum(process.num_fds() for process in processes),
            threads=sum(process.num_threads() for process in processes),
        )

    def footprint_once_idle(self, before: Footprint | None = None) -> Footprint:
        """What the processes hold once nothing grows any more, or after a while."""
        ends_at = time.monotonic() + _SETTLE_S
        time.sleep(1)
        while (now := self.footprint()) and before and now.growth_since(before) and time.monotonic() < ends_at:
            time.sleep(1)
        return now

    def leaks(self) -> list[str]:
        """Where a token or a signature came that must not have come."""
        lines = [line for line in self._log_lines() if any(secret in line for secret in SECRETS)]
        problems = [f"a secret stands in {len(lines)} lines of the log, such as {lines[0][:120]}..."] if lines else []
        if self._world.hostile.authorizations:
            problems.append(f"another origin got {len(self._world.hostile.authorizations)} Authorization headers")
        return problems

    def tracebacks(self) -> list[str]:
        """What failed inside, by the log: nothing should but where an engine is made to."""
        count = sum(line.startswith("Traceback (most recent call last)") for line in self._log_lines())
        return [f"{count} tracebacks stand in the log"] if count else []

    def _log_lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def _setup(self, project: str, token: str) -> requests.Response:
        body = {"project": project, "schema": LABEL_CONFIG, "hostname": self._world.studio.url, "access_token": token}
        return requests.post(f"{self.url}/setup", json=body, timeout=30)

    def _inject_once(self, task: Task, project: str) -> _Answer:
        good = [image_task(address, self.new_task_id()) for address in self._neighbours]
        started_at = time.monotonic()
        try:
            before, result, after = self.predict([good[0], task, good[1]], project)
        except (UnexpectedAnswerError, requests.RequestException) as error:
            return _Answer(False, time.monotonic() - started_at, [str(error)])
        took_s = time.monotonic() - started_at
        problems = []
        if not all(same_boxes(*pair) for pair in zip((before, after), self._expected, strict=True)):
            problems.append("a good task beside it has other boxes than alone")
        if took_s > ANSWER_WITHIN_S:
            problems.append(f"the answer took {took_s:.1f} s")
        return _Answer(result != [], took_s, problems)

    def _ask_again(self, fault: Fault, tasks: list[Task], outcome: Outcome) -> None:
        """Mend the server, and ask for the same tasks again, as the next click does."""
        self._world.hostile.healed.add(fault.slug)
        try:
            results = self.predict(tasks, fault.project)
        except (UnexpectedAnswerError, requests.RequestException) as error:
            outcome.problems.append(f"asked again: {error}")
            return
        finally:
            self._world.hostile.healed.discard(fault.slug)
        predicted = sum(result != [] for result in results)
        outcome.lost = f"that task's prediction, until the next click (then {predicted} of {len(tasks)} are predicted)"
        if predicted != len(tasks):
            outcome.problems.append(f"asked again, {predicted} of {len(tasks)} are predicted")


@dataclass(frozen=True)
class _Answer:
    predicted: bool
    took_s: float
    problems: list[str]


class HealthWatch:
    """Asks for /health all the time, in a thread of its own."""

    def __init__(self, backend: Backend) -> None:
        self.asked = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []
        self._backend = backend
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> HealthWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_HEALTH_EVERY_S):
            started_at = time.monotonic()
            try:
                response = self._backend.health()
                if not response.ok:
                    self.failures.append(f"/health answers {response.status_code}")
            except requests.RequestException as error:
                self.failures.append(f"/health: {type(error).__name__}")
            self.asked += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - started_at)


def faulty_backend_server(
    port: int, environment: Mapping[str, str], log: Path
) -> AbstractContextManager[BackendServer]:
    """Start the backend with the faulty engine, and stop it at the end. Raises StackError."""
    return backend_of("tests.faults.engine", port, environment, log)


def wait_until(is_so: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until it is so, or the time is up; a connection that fails is no."""
    ends_at = time.monotonic() + timeout_s
    while time.monotonic() < ends_at:
        with contextlib.suppress(requests.RequestException):
            if is_so():
                return True
        time.sleep(0.2)
    return False


def _boxes(result: Any) -> list[tuple[str, list[float]]]:
    regions = result["result"] if result else []
    return [
        (region["value"]["rectanglelabels"][0], [region["value"][key] for key in ("x", "y", "width", "height")])
        for region in regions
    ]


def same_boxes(result: Any, expected: Any) -> bool:
    """Returns True if both have the same labels in the same places, but for rounding."""
    found, wanted = _boxes(result), _boxes(expected)
    return [label for label, _ in found] == [label for label, _ in wanted] and all(
        abs(a - b) < 0.01
        for (_, box), (_, other) in zip(found, wanted, strict=True)
        for a, b in zip(box, other, strict=True)
    )
