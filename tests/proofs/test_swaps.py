"""New weights while a real server is under load, in one process or two, and processes that are killed meanwhile."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.weights import labels_for, renamed_weights, version_of, wait_for
from yolo_backend.detection.weights import put_weights

NAME, OTHER = "mine.pt", "other.pt"
SWAPS = 50
NAMES = [f"cells-{number}" for number in range(SWAPS + 1)]
LABELS = labels_for(NAMES)
OTHER_LABELS = LABELS.replace("<RectangleLabels", f'<RectangleLabels model_path="{OTHER}"')
TASKS = 4
DEADLINE_S = 20.0
MEGABYTE = 1e6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def environment(root: Path, **more: str) -> dict[str, str]:
    return {
        "MODEL_NAME": NAME,
        "MODEL_ROOT": str(root),
        "MODEL_DIR": str(root.parent / "model_dir"),
        "MODEL_IMAGE_SIZE": "160",
        "PREDICT_DEADLINE_SECONDS": str(DEADLINE_S),
        "CACHE_MEGABYTES": "0",  # each answer from the model
        **more,
    }


def setup(server: BackendServer) -> str:
    return version_of(server, LABELS)


def body_of(photo: str, project: int, label_config: str = LABELS) -> dict[str, Any]:
    return {
        "project": f"{project}.1700000000",
        "label_config": label_config,
        "tasks": [{"id": number + 1, "data": {"image": photo}} for number in range(TASKS)],
        "params": {"context": None},
    }


def click(server: BackendServer, photo: str, project: int, label_config: str = LABELS) -> list[Any]:
    body = body_of(photo, project, label_config)
    answer = requests.post(f"{server.url}/predict", json=body, timeout=120)
    answer.raise_for_status()
    results: list[Any] = answer.json()["results"]
    return results


def memory_mb(server: BackendServer) -> float:
    """Of the server's processes together."""
    parent = psutil.Process(server.process.pid)
    return float(sum(each.memory_info().rss for each in [parent, *parent.children(recursive=True)])) / MEGABYTE


@pytest.fixture
def photo(bccd_files: list[Path]) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(bccd_files[0].read_bytes()).decode()


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("max_models", [1, 4])
def test_swaps_under_load(root: Path, bccd_weights: Path, photo: str, tmp_path: Path, max_models: int) -> None:
    """Each answer is of one file whole, none is lost, none is late, and memory stays as it is."""
    swaps = SWAPS if max_models == 1 else SWAPS // 5
    files = [renamed_weights(bccd_weights, name, tmp_path) for name in NAMES[: swaps + 1]]
    put_weights(files[0], NAME, root)
    settings = environment(root, ENGINE="torch", MAX_MODELS=str(max_models))
    with backend_server(pick_port(0), settings, tmp_path / "backend.log") as server:
        wait_until_ready(server.url)
        stop = threading.Event()
        answers: list[tuple[float, list[Any]]] = []
        versions = {setup(server): NAMES[0]}

        def ask(person: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                began_at = time.monotonic()
                results = click(server, photo, 1000 * person + number)
                answers.append((time.monotonic() - began_at, results))

        with ThreadPoolExecutor(3) as threads:
            asking = [threads.submit(ask, person) for person in (1, 2, 3)]
            before_mb = 0.0
            for number, file in enumerate(files[1:], 1):
                put_weights(file, NAME, root)
                version = wait_for(lambda: (found := setup(server)) not in versions and found)
                versions[version] = NAMES[number]
                if number == min(10, swaps - 1):
                    before_mb = memory_mb(server)
            after_mb = memory_mb(server)
            stop.set()
            for each in asking:
                each.result()
    assert len(versions) == swaps + 1
    assert len(answers) > swaps
    for seconds, results in answers:
        assert all(results), "none is lost"
        (version,) = {result["model_version"] for result in results}
        labels = {region["value"]["rectanglelabels"][0] for result in results for region in result["result"]}
        assert labels == {versions[version]}
        assert seconds < DEADLINE_S
    assert after_mb < 1.25 * before_mb


@pytest.mark.timeout(1500)
def test_killed_at_any_moment_of_a_start_a_swap_or_an_eviction(
    root: Path, bccd_weights: Path, photo: str, tmp_path: Path
) -> None:
    """The next start serves what lies there, by the same version as a server that was never killed."""
    dice = random.Random(7)
    files = [renamed_weights(bccd_weights, name, tmp_path) for name in NAMES[:10]]
    put_weights(files[9], OTHER, root)
    for number in range(8):
        put_weights(files[number], NAME, root)
        settings = environment(root, MAX_MODELS="1")
        with (
            backend_server(pick_port(0), settings, tmp_path / f"backend-{number}.log") as server,
            ThreadPoolExecutor(2) as people,
        ):
            # Two weights and one place: each click puts away what the other one needs.
            asking = [people.submit(click_until_it_is_gone, server, photo, config) for config in (LABELS, OTHER_LABELS)]
            if number % 2:
                put_weights(files[number + 1], NAME, root)
            time.sleep(dice.uniform(0, 12))  # it is read, exported, opened and warmed up meanwhile
            parent = psutil.Process(server.process.pid)
            for process in [*parent.children(recursive=True), parent]:
                process.kill()
            for each in asking:
                each.result()
    put_weights(files[8], NAME, root)
    answers = []
    for folder in (root.parent / "model_dir", tmp_path / "another"):
        settings = environment(root, MODEL_DIR=str(folder))
        with backend_server(pick_port(0), settings, tmp_path / f"{folder.name}.log") as server:
            results = click(server, photo, 7)
            assert {result["model_version"] for result in results} == {setup(server)}
            answers.append((setup(server), [len(result["result"]) for result in results]))
            assert requests.get(server.url, timeout=10).json()["engine"] == "onnx"
    assert answers[0] == answers[1]


def click_until_it_is_gone(server: BackendServer, photo: str, config: str) -> None:
    number = 0
    with contextlib.suppress(requests.ConnectionError):
        while True:
            number += 1
            click(server, photo, 100 * number + len(config) % 100, config)


@dataclass(frozen=True)
class Round:
    """What one process said, of its `/setup`, of a click, and of its `/setup` again."""

    process: int
    began_at: float
    before: str
    results: list[Any]
    after: str
    ended_at: float


class IdleTooLongError(Exception):
    """The server hung up on a connection on which nothing was asked for a while."""


class Kept:
    """A kept connection: what is asked of it, one of the server's processes answers."""

    def __init__(self, server: BackendServer) -> None:
        self._http = HTTPConnection(urlsplit(server.url).netloc, timeout=120)
        self._http.connect()
        self._http.auto_open = 0  # or another process may answer the next question
        self._answered_at = time.monotonic()
        self._workers = psutil.Process(server.process.pid).children()

    def process_if_ready(self) -> int | None:
        """The process that answers, if it has its model."""
        index = self._ask("GET", "/")
        return self._process() if index["status"] == "UP" and index["engine"] else None

    def ask_once(self, photo: str, project: int) -> Round:
        began_at = time.monotonic()
        before = self._setup()
        process = self._process()
        results = self._ask("POST", "/predict", body_of(photo, project))["results"]
        after = self._setup()
        return Round(process, began_at, before, results, after, time.monotonic())

    def close(self) -> None:
        self._http.close()

    def _setup(self) -> str:
        body = {"project": "1.1700000000", "schema": LABELS, "hostname": "", "access_token": ""}
        return str(self._ask("POST", "/setup", body)["model_version"])

    def _process(self) -> int:
        """The one that has the other end. Raises IdleTooLongError if none has it any more."""
        port = self._http.sock.getsockname()[1]
        owners = [
            worker.pid
            for worker in self._workers
            if any(end.raddr and end.raddr.port == port for end in worker.net_connections("tcp"))
        ]
        if not owners:
            raise IdleTooLongError
        return int(owners[0])

    def _ask(self, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
        sent = None if body is None else json.dumps(body)
        try:
            try:
                self._http.request(method, route, sent, {"Content-Type": "application/json"})
            finally:
                idle_s = time.monotonic() - self._answered_at
            answer = self._http.getresponse()
            content = answer.read()
        except ConnectionError:
            if idle_s > 1:  # gunicorn gives it 2 s, and this machine may be busy
                raise IdleTooLongError from None
            raise
        self._answered_at = time.monotonic()
        assert answer.status == 200, content
        return json.loads(content)


def is_ready(server: BackendServer, ready: set[int | None]) -> bool:
    """Returns True once both processes have their model; `ready` gets those that have it."""
    with contextlib.suppress(IdleTooLongError), contextlib.closing(Kept(server)) as connection:
        ready.add(connection.process_if_ready())
    return len(ready - {None}) == 2


def found_in(result: Any) -> list[tuple[str, float]]:
    """Labels and scores of a prediction, which tell the weights."""
    return [(region["value"]["rectanglelabels"][0], region["score"]) for region in result["result"]]


def is_close(found: list[tuple[str, float]], other: list[tuple[str, float]]) -> bool:
    """The same labels, and scores but for rounding."""
    return [label for label, _ in found] == [label for label, _ in other] and [score for _, score in found] == (
        pytest.approx([score for _, score in other], abs=1e-3)
    )


@pytest.mark.timeout(900)
def test_two_processes_switch_each_by_itself(root: Path, bccd_weights: Path, photo: str, tmp_path: Path) -> None:
    """Each answer is of one file whole, and none is lost; no process goes back, and in the end both have the new one.

    What a process says at `/setup` before and after a click, the click's predictions have.
    """
    files = [
        renamed_weights(bccd_weights, name, tmp_path, less_sure_by=number / 4) for number, name in enumerate(NAMES[:3])
    ]
    put_weights(files[0], NAME, root)
    with backend_server(
        pick_port(0), environment(root, ENGINE="torch", WORKERS="2"), tmp_path / "backend.log"
    ) as server:
        ready: set[int | None] = set()
        wait_for(lambda: is_ready(server, ready))
        stop = threading.Event()
        rounds: list[Round] = []

        def ask(person: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                with contextlib.suppress(IdleTooLongError), contextlib.closing(Kept(server)) as connection:
                    rounds.append(connection.ask_once(photo, 1000 * person + number))

        def version_of_both(known: list[str]) -> str | None:
            """A version that isn't known yet, once both processes' last word is that."""
            for person in asking:
                if person.done():
                    person.result()  # which failed
            last = {each.process: each.after for each in list(rounds)}
            said = set(last.values())
            return said.pop() if len(last) == 2 and len(said) == 1 and not said & set(known) else None

        versions: list[str] = []
        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(ask, person) for person in (1, 2, 3, 4)]
            try:
                versions.append(wait_for(lambda: version_of_both(versions)))
                for file in files[1:]:
                    put_weights(file, NAME, root)
                    versions.append(wait_for(lambda: version_of_both(versions)))
                asked = len(rounds)
                wait_for(lambda: len(rounds) > asked + 8)  # after the last switch
            finally:
                stop.set()
            for person in asking:
                person.result()
    found: dict[str, list[tuple[str, float]]] = {}
    for each in rounds:
        assert all(each.results), "none is lost"
        (version,) = {result["model_version"] for result in each.results}
        assert versions.index(each.before) <= versions.index(version) <= versions.index(each.after)
        for result in each.results:
            assert is_close(found_in(result), found.setdefault(version, found_in(result)))
    labels = [{label for label, _ in found[version]} & set(NAMES) for version in versions]
    assert labels == [{name} for name in NAMES[:3]]
    first, second, third = ([score for _, score in found[version]] for version in versions)
    assert max(first) > max(second) > max(third)
    for one, other in itertools.permutations(rounds, 2):
        if one.process == other.process and one.ended_at < other.began_at:
            assert versions.index(one.after) <= versions.index(other.before), "no process goes back"
