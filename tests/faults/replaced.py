"""Files that are replaced while they are in use: the weights under load, and an image between two clicks."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import sub
from pathlib import Path
from typing import Any

import requests

from tests.faults.backend import Backend, Outcome, same_boxes, wait_until
from tests.faults.images import data_address, photo_file, photo_with_comment
from tests.faults.kinds import PREDICTED, WITHOUT_STUDIO, image_task
from tests.harness.bulk import Task
from tests.harness.http_server import LONG_AGO, conditional, http_servers, reply
from tests.harness.stack import ROOT
from tests.harness.studio_client import metric
from tests.harness.weights import labels_for, renamed_weights
from yolo_backend.detection.weights import put_weights

_NAME = "mine.pt"
_ORIGINAL = ROOT / "yolo_backend" / "demo" / "demo.pt"
_RENAMED = ("nut", "second", "third")  # what nuts are called in each file
_LABELS = labels_for([*_RENAMED, "bolt", "washer"])
_CLIENTS, _TASKS = 2, 3
_DEADLINE_S = 20.0
_SWITCH_WITHIN_S = 60.0
_AFTERWARDS_S = 1.0
_PIECES, _PIECE_EVERY_S = 6, 0.5
_IMAGE_TIMES = 4
_SIDES = ("x", "y", "width", "height")
_ROUNDING = 1.0  # of a hundred: of the image's width or height, and of the score


def replaced_environment(folder: Path) -> dict[str, str]:
    """Serves weights that may be replaced, and remembers what it has found; the weights are put there first."""
    put_weights(_weights(0, folder), _NAME, folder / "models")
    (folder / "files").mkdir()
    return {
        "MODEL_NAME": _NAME,
        "MODEL_ROOT": str(folder / "models"),
        "MODEL_IMAGE_SIZE": "320",
        "DEVICE": "cpu",
        "ENGINE": "torch",  # an export of each file takes long
        "PREDICT_DEADLINE_SECONDS": str(_DEADLINE_S),
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
        "LOCAL_FILES_DOCUMENT_ROOT": str(folder / "files"),
    }


# The weights


def inject_new_weights(backend: Backend, folder: Path) -> Iterator[Outcome]:
    """Replace the weights while two people click all the time, each time by something else."""
    place = folder / "models" / _NAME
    before = _Serving.now(backend, _RENAMED[0])

    _, second, third = _RENAMED
    content = _weights(2, folder).read_bytes()
    with _under_load(backend, "is replaced by a whole new one", before) as load:
        put_weights(_weights(1, folder), _NAME, place.parent)
        before = load.switches_to(second)
    yield load.outcome
    with _under_load(backend, "is replaced by one that holds no weights", before) as load:
        _put(place, b"no weights at all" * 1000)
        load.stays("so the one before it serves: ")
    yield load.outcome
    with _under_load(backend, "is overwritten with half of a new one, as by a copy that was cut off", before) as load:
        place.write_bytes(content[: len(content) // 2])
        load.stays("so the one before it serves: ")
    yield load.outcome
    with _under_load(backend, "is overwritten with a whole new one, piece by piece", before) as load:
        with place.open("wb") as file:
            for start in range(0, len(content), len(content) // _PIECES + 1):
                file.write(content[start : start + len(content) // _PIECES + 1])
                file.flush()
                time.sleep(_PIECE_EVERY_S)
        before = load.switches_to(third)
    yield load.outcome
    with _under_load(backend, "is deleted", before) as load:
        place.unlink()
        load.stays("is gone")
    yield load.outcome
    with _under_load(backend, "is put back", before) as load:
        put_weights(_weights(2, folder), _NAME, place.parent)
        load.stays(None)
    yield load.outcome


@dataclass(frozen=True)
class _Serving:
    """What weights say at `/setup`, and what they find in the good image, seen while nothing changes."""

    version: str
    result: Any

    @staticmethod
    def now(backend: Backend, name: str) -> _Serving:
        """Raises ValueError where it isn't the file in which nuts are called so."""
        version = _version(backend)
        (result,) = backend.predict([_new_photo_task(backend)], label_config=_LABELS)
        labels = {region["value"]["rectanglelabels"][0] for region in result["result"]}
        if labels & set(_RENAMED) != {name} or result["model_version"] != version:
            raise ValueError(f"{labels} of {result['model_version']} are found, expected {name} of {version}")
        return _Serving(version, result)


class _Load:
    """What came out while the weights were replaced."""

    def __init__(self, backend: Backend, name: str, before: _Serving) -> None:
        self.outcome = Outcome(f"the file of the weights {name}", 1)
        self.answers: list[tuple[list[Any], float]] = []
        self.known = {before.version: ("of the file before", before.result)}
        self.expected = {"of the file before"}
        self._backend = backend
        self._before = before
        self._told_before = _refused(backend)

    def switches_to(self, name: str) -> _Serving:
        """Wait until the new file serves, and a while longer."""
        if not wait_until(lambda: _version(self._backend) != self._before.version, _SWITCH_WITHIN_S):
            self.outcome.problems.append(f"{_SWITCH_WITHIN_S:g} s later, the new file doesn't serve")
            return self._before
        now = _Serving.now(self._backend, name)
        if _is_same(now.result, self._before.result, but_labels=True):
            self.outcome.problems.append("both files find the same: the check says nothing")
        self.known[now.version] = ("of the new file", now.result)
        self.expected.add("of the new file")
        time.sleep(_AFTERWARDS_S)
        return now

    def stays(self, words: str | None) -> None:
        """Wait until the status page tells of it in these words, or has no more to tell."""

        def is_told() -> bool:
            told = _refused(self._backend)
            if told == self._told_before:
                return False
            return bool(told) and words in told[0] if words else not told

        if not wait_until(is_told, _SWITCH_WITHIN_S):
            told = _refused(self._backend)
            self.outcome.problems.append(f"{_SWITCH_WITHIN_S:g} s later, the status page says: {told}")
        if _version(self._backend) != self._before.version:
            self.outcome.problems.append("/setup says another version")

    def judge(self) -> None:
        """Each answer should be of one file whole."""
        outcome = self.outcome
        for results, took_s in self.answers:
            outcome.slowest_s = max(outcome.slowest_s, took_s)
            versions = {result["model_version"] if result else None for result in results}
            for result in results:
                outcome.came_out[self._file_of(result)] += 1
            if len(versions) > 1:
                outcome.problems.append("an answer is of two files")
        if set(outcome.came_out) != self.expected:
            outcome.problems.append(f"{dict(outcome.came_out)} came out, expected {', '.join(sorted(self.expected))}")
        if outcome.slowest_s > _DEADLINE_S:
            outcome.problems.append(f"an answer took {outcome.slowest_s:.1f} s")

    def _file_of(self, result: Any) -> str:
        if not result:
            return "no boxes"
        name, expected = self.known.get(result["model_version"], ("of an unknown version", None))
        return name if _is_same(result, expected) else "boxes of another file"


@contextlib.contextmanager
def _under_load(backend: Backend, name: str, before: _Serving) -> Iterator[_Load]:
    """In the block, people click all the time; at its end it is seen what they got."""
    load = _Load(backend, name, before)
    stop = threading.Event()
    numbers = itertools.count(1)

    def click() -> None:
        while not stop.is_set():
            started_at = time.monotonic()
            tasks = [_new_photo_task(backend) for _ in range(_TASKS)]
            results = backend.predict(tasks, f"{name} {next(numbers)}", label_config=_LABELS)
            load.answers.append((results, time.monotonic() - started_at))

    with ThreadPoolExecutor(_CLIENTS) as people:
        clicking = [people.submit(click) for _ in range(_CLIENTS)]
        try:
            yield load
        finally:
            stop.set()
        for each in clicking:
            each.result()
    load.judge()


def _weights(number: int, folder: Path) -> Path:
    """The demo's weights with another name for its nuts, and lower scores."""
    made = folder / f"{_RENAMED[number]}.pt"
    if not made.exists():
        renamed_weights(_ORIGINAL, _RENAMED[number], folder, renames="nut", less_sure_by=number)
    return made


def _put(place: Path, content: bytes) -> None:
    """A whole file in the place of another."""
    new = place.with_name(f".{place.name}.new")
    new.write_bytes(content)
    new.replace(place)


def _is_same(result: Any, expected: Any, *, but_labels: bool = False) -> bool:
    """Returns True if both have the same boxes, labels and scores, but for rounding."""
    pairs = list(zip(_found(result), _found(expected), strict=False))
    return len(_found(result)) == len(_found(expected)) and all(
        (but_labels or label == other) and max(map(abs, map(sub, numbers, others))) < _ROUNDING
        for (label, numbers), (other, others) in pairs
    )


def _found(result: Any) -> list[tuple[str, list[float]]]:
    values = [(region["value"], region["score"]) for region in result["result"]] if result else []
    return [(value["rectanglelabels"][0], [100 * score, *(value[key] for key in _SIDES)]) for value, score in values]


def _version(backend: Backend) -> str:
    body = {"project": WITHOUT_STUDIO, "schema": _LABELS, "hostname": "", "access_token": ""}
    response = requests.post(f"{backend.url}/setup", json=body, timeout=10)
    response.raise_for_status()
    return str(response.json()["model_version"])


def _refused(backend: Backend) -> list[str]:
    """What the status page says of new files that don't serve."""
    return list(requests.get(backend.url, timeout=10).json()["refused"])


def _new_photo_task(backend: Backend) -> Task:
    """A task with the photo as a file that wasn't seen before, or the answer would come from memory."""
    number = backend.new_task_id()
    return image_task(data_address(photo_with_comment(str(number))), number)


# Images


def inject_new_images(backend: Backend, folder: Path) -> Iterator[Outcome]:
    """Replace an image between two clicks, where it is remembered what was found in the one before."""
    file = folder / "files" / "a.png"

    def write(content: bytes, number: int) -> None:
        file.write_bytes(content)
        _age(file, number)

    def rename(content: bytes, number: int) -> None:
        _put(file, content)
        _age(file, number)

    local = "/data/local-files/?d=a.png"
    yield _click_after_each(backend, "of Local Files, by another file", local, rename)
    yield _click_after_each(backend, "of Local Files, written anew", local, write)
    with http_servers() as start:
        for name, headers in {
            "whose server gives an ETag": lambda number: {"ETag": f'"{number}"'},
            "whose server says Last-Modified": lambda number: {
                "Last_Modified": LONG_AGO.replace(":00 ", f":0{number} ")
            },
            "whose server tells neither": lambda number: {},
        }.items():
            server = start(reply(b""))

            def serve(content: bytes, number: int, server: Any = server, headers: Any = headers) -> None:
                server.answer = conditional(content, **headers(number)) if headers(number) else reply(content)

            yield _click_after_each(backend, name, f"{server.url}/a.png", serve)


def _click_after_each(backend: Backend, name: str, address: str, replace: Callable[[bytes, int], None]) -> Outcome:
    """Click twice after each time that the image is replaced: the second click is answered from memory."""
    outcome = Outcome(f"an image {name}, is replaced between two clicks", _IMAGE_TIMES)
    contents = [photo_file("PNG", seed=seed) for seed in (1, 3)]
    alone = [backend.predict([image_task(data_address(content), backend.new_task_id())])[0] for content in contents]
    if same_boxes(*alone):
        outcome.problems.append("both images have the same boxes: the check says nothing")
    for number in range(_IMAGE_TIMES):
        replace(contents[number % 2], number)
        results = []
        for _click in range(2):
            remembered = metric(backend.url, "yolo_remembered_images_total")
            started_at = time.monotonic()
            tasks = [image_task(address, backend.new_task_id()) for _ in range(2)]
            results += backend.predict(tasks, f"images {name}")
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - started_at)
        if metric(backend.url, "yolo_remembered_images_total") == remembered:
            outcome.problems.append("the second click was not answered from memory: the check says nothing")
        right, old = (sum(same_boxes(result, alone[(number + of) % 2]) for result in results) for of in (0, 1))
        outcome.came_out[PREDICTED if right == len(results) else "the boxes of before" if old else "other boxes"] += 1
    if set(outcome.came_out) != {PREDICTED}:
        outcome.problems.append(f"{dict(outcome.came_out)} came out, expected the new image's boxes")
    return outcome


def _age(file: Path, number: int) -> None:
    """Written a minute ago, for what is younger is never answered from memory."""
    written_at = time.time() - 60 + number
    os.utime(file, (written_at, written_at))
