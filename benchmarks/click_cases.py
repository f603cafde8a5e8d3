"""The cases of the benchmark of clicks: on uploads and on a bucket's photographs, over each way in turn."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import requests

from benchmarks.click_results import BUCKET, FOLDER, HTTP, Click, Part, Round, Row, not_stored_once
from benchmarks.speed_client import CLIENTS, Client
from benchmarks.speed_limits import OwnExportAlone
from benchmarks.speed_server import S3
from tests.harness.bulk import Task, processor_s, wait_until_idle, work
from tests.harness.stack import BackendServer, LabelStudioServer
from tests.harness.studio_client import StudioClient
from yolo_backend.images.sources import Remote, resolve_source
from yolo_backend.label_studio.studio import Studio

_LIMIT_S = 0.5  # of each look at the model alone
_LOOK_EVERY_S = 0.2
_FINISHED_WITHIN_S = 300.0
_COUNTED_WITHIN_S = 10.0
_UPLOADED_AT_ONCE = 50  # Label Studio takes up to 100 files in a request
_SERVED = 120  # of a thousand images it serves each as fast as the one before

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """Clicks on so many photographs of a size, over each way in turn, and how often.

    Label Studio serves them in so many processes.
    """

    database: str
    weights: str
    size: str
    tasks: int
    ways: tuple[str, ...]
    repeats: int
    processes: int = 1

    @property
    def on_uploads(self) -> str:
        """The first way whose images are uploads; all such have one project."""
        return next(way for way in self.ways if way != BUCKET)


@dataclass(frozen=True)
class Bench:
    """A Label Studio with a person in it, and the backends that they click with; `problems` tells what went wrong.

    `studio_pids` are the processes of Label Studio and its database. `alone` is a backend that knows no Label Studio
    and is asked directly, `backends` are those of each way: what one remembers of images, the other doesn't.
    """

    client: Client
    model: OwnExportAlone
    server: LabelStudioServer
    token: str
    studio_pids: Collection[int]
    alone: BackendServer
    backends: Mapping[str, BackendServer]
    problems: list[str] = field(default_factory=list)

    def warm_up(self, case: Case, count: int) -> None:
        """Click on a few over each way, before what is measured."""
        projects = self._new_projects(case, count)
        self.client.ask(self.alone, _as_local_files(self._person.tasks(projects[case.on_uploads])))
        for way, project in projects.items():
            self._click(project, self.backends[way], count)

    def measure(self, case: Case) -> list[Row]:
        """The rows of a case; every second round goes over the ways from the last to the first."""
        rounds = [self._round(case, case.ways[:: -1 if number % 2 else 1]) for number in range(case.repeats)]
        return [
            Row(case.database, case.size, case.tasks, case.weights, way, [each[way] for each in rounds], case.processes)
            for way in case.ways
        ]

    @cached_property
    def _person(self) -> StudioClient:
        return StudioClient(self.server.url, self.token)

    def _round(self, case: Case, ways: Sequence[str]) -> dict[str, Round]:
        """Click over these ways, on images that are new to these backends, and measure alone what bounds it."""
        count = case.tasks
        model_images_per_s = [self.model.own_rate(_LIMIT_S)]
        projects = self._new_projects(case, count)
        tasks = self._person.tasks(projects[case.on_uploads])
        files = _as_local_files(tasks)
        predict, asked = self._part(count, [self.alone.process.pid], lambda: self.client.ask(self.alone, files))
        serving = {HTTP: self._serving(tasks, self.studio_pids)}
        if BUCKET in ways:
            pids = [*self.studio_pids, self.client.server.process.pid]
            serving[BUCKET] = self._serving(self._person.tasks(projects[BUCKET]), pids)
        clicks = {}
        stored: Mapping[int, Sequence[dict[str, Any]]] = {}
        for way in ways:
            log_bytes = self.server.log.stat().st_size
            clicks[way] = self._click(projects[way], self.backends[way], count)
            stored = self._person.predictions(projects[way])
            wrong = not_stored_once(stored, count)
            if way != BUCKET:  # whose images are others
                wrong += _lost_regions(stored, asked.boxes)
            if way == FOLDER:
                wrong += self._fetched_uploads(log_bytes)
            self.problems.extend(f"{case.size} at {case.weights}, {case.database}, {way}: {it}" for it in wrong)
        storing = self._storing(projects[ways[-1]], stored)
        model_images_per_s.append(self.model.own_rate(_LIMIT_S))
        return {
            way: Round(click, predict, serving.get(way), storing, statistics.mean(model_images_per_s))
            for way, click in clicks.items()
        }

    def _click(self, project: int, backend: BackendServer, count: int) -> Click:
        """Click where no task holds a prediction, and wait until the backend has finished."""
        person = self._person
        person.delete_predictions(project)
        connection = person.connect(project, backend.url)["id"]
        processes = (self.studio_pids, [backend.process.pid])
        core_before_s = [processor_s(pids) for pids in processes]
        began_at = time.monotonic()

        def taken() -> tuple[float, list[float]]:
            now = time.monotonic()
            cores_s = [processor_s(pids) - before_s for pids, before_s in zip(processes, core_before_s, strict=True)]
            return now - began_at, cores_s

        person.retrieve_predictions(project)
        took_s, cores_s = taken()
        answered_s = took_s
        stored = stored_when_answered = person.total_predictions(project)
        if stored < count:
            # The backend is asked, because Label Studio's count takes the cores that it stores with.
            _wait_until_delivered(backend.url, project, count)
            took_s, cores_s = taken()
            ends_at = time.monotonic() + _COUNTED_WITHIN_S
            while (stored := person.total_predictions(project)) < count and time.monotonic() < ends_at:
                time.sleep(1)
                took_s, cores_s = taken()
        wait_until_idle(backend.url, _FINISHED_WITHIN_S, _LOOK_EVERY_S)
        person.call("DELETE", f"/api/ml/{connection}")
        if not stored:
            raise RuntimeError(f"no prediction was stored; the backend's log ends: {backend.log.read_text()[-500:]}")
        return Click(count, took_s, answered_s, stored_when_answered, *cores_s)

    def _fetched_uploads(self, log_bytes: int) -> Iterator[str]:
        """Of Label Studio's log, from this byte on."""
        with self.server.log.open("rb") as log:
            log.seek(log_bytes)
            addresses = set(re.findall(rb'"GET (/data/upload/\S+)', log.read()))
        if addresses:
            yield f"{len(addresses)} uploads were fetched over HTTP"

    def _serving(self, tasks: Sequence[Task], pids: Collection[int]) -> Part:
        """Get images of tasks from where the backend gets them, several at a time; these processes serve them."""
        asked, studio = tasks[:_SERVED], Studio(self.server.url, self.token)
        headers = {"Authorization": studio.authorization() or ""}
        with ThreadPoolExecutor(CLIENTS) as pool:

            def get(task: Task) -> None:
                source = resolve_source(task["data"]["image"], task["id"], studio.url, None)
                assert isinstance(source, Remote)
                requests.get(source.url, headers=headers, timeout=60).raise_for_status()  # it closes each connection

            return self._part(len(asked), pids, lambda: list(pool.map(get, asked)))[0]

    def _storing(self, project: int, stored: Mapping[int, Sequence[dict[str, Any]]]) -> Part:
        """Delete the predictions that each task holds, and store them once more in one import."""
        predictions = [
            {"task": task_id} | {key: prediction[key] for key in ("result", "score", "model_version")}
            for task_id, held in stored.items()
            for prediction in held
        ]
        self._person.delete_predictions(project)
        path = f"/api/projects/{project}/import/predictions"
        part, _ = self._part(
            len(predictions), self.studio_pids, lambda: self._person.call("POST", path, json=predictions)
        )
        if (total := self._person.total_predictions(project)) != len(predictions):
            self.problems.append(f"of {len(predictions)} predictions in one import {total} were stored")
        return part

    def _part(self, images: int, pids: Collection[int], do: Callable[[], T]) -> tuple[Part, T]:
        core_before_s, began_at = processor_s(pids), time.monotonic()
        done = do()
        return Part(images, time.monotonic() - began_at, processor_s(pids) - core_before_s), done

    def _new_projects(self, case: Case, count: int) -> dict[str, int]:
        """The project of each way, with images that are new to these backends."""
        uploads = self._new_uploads(case.size, count)
        return {way: self._new_project_on_bucket(case.size, count) if way == BUCKET else uploads for way in case.ways}

    def _new_uploads(self, size: str, count: int) -> int:
        """A project to which new photographs were uploaded."""
        project = self._person.create_project(f"{count} of {size}")
        with tempfile.TemporaryDirectory(dir=self.client.folder) as folder:
            files = [Path(folder, f"{number}.jpg") for number in range(count)]
            for file, task in zip(files, self.client.tasks(size, count), strict=True):
                file.write_bytes(requests.get(task["data"]["image"], timeout=10).content)
            for first in range(0, count, _UPLOADED_AT_ONCE):
                self._person.upload(project, files[first : first + _UPLOADED_AT_ONCE])
        return project

    def _new_project_on_bucket(self, size: str, count: int) -> int:
        """A project whose new photographs lie in a bucket of S3, for which Label Studio signs addresses."""
        project = self._person.create_project(f"{count} of {size} in a bucket")
        storage = {
            "project": project,
            "bucket": S3,
            "s3_endpoint": self.client.server.url,
            "aws_access_key_id": "a key",
            "aws_secret_access_key": "its secret",
            "use_blob_urls": True,
            "presign": True,
        }
        self._person.call("POST", "/api/storages/s3", json=storage)
        tasks = self.client.tasks(size, count, S3)
        self._person.import_tasks(project, [{"data": task["data"]} for task in tasks])
        return project


def _wait_until_delivered(backend_url: str, project: int, count: int) -> None:
    """Wait until the backend has delivered so many predictions, or has finished: which it tells a second later.

    Raises TimeoutError, which tells its work.
    """
    ends_at = time.monotonic() + _FINISHED_WITHIN_S
    while not any(
        each["finished_at"] or each["answered"] + each["pushed"] >= count
        for each in work(backend_url)
        if each["project"] == str(project)
    ):
        if time.monotonic() >= ends_at:
            raise TimeoutError(f"{backend_url} has not delivered all of {count}: {work(backend_url)}")
        time.sleep(_LOOK_EVERY_S)


def _as_local_files(uploads: Sequence[Task]) -> list[Task]:
    """The same tasks with the addresses of these files below Label Studio's folder of media."""
    return [
        {"id": task["id"], "data": {"image": f"/data/local-files/?d={task['data']['image'].removeprefix('/data/')}"}}
        for task in uploads
    ]


def _lost_regions(stored: Mapping[int, Sequence[dict[str, Any]]], found: int) -> Iterator[str]:
    """Where other regions are stored than so many that `/predict` found on the same files."""
    regions = sum(len(prediction["result"]) for held in stored.values() for prediction in held)
    if regions != found:
        yield f"{regions} regions are stored, and /predict finds {found} on the same files"
