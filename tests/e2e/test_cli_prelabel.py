"""`tasks` and `prelabel` on the real Label Studio: filters, failures, pictures, older versions, and a run killed."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from typer.testing import CliRunner

from tests.harness.command import Done, run_command, run_json, run_process, start_command
from tests.harness.http_server import ServedFolder, StartServer, reply
from tests.harness.stack import BackendServer, LabelStudioServer, pick_port
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, boxes, metric
from yolo_backend.cli.app import app

OLD, OTHER = "bccd-0123abcd", "sam-20261122"  # of this backend's weights once, and of another system
# So that thousands are soon done.
QUICK = {"MODEL_IMAGE_SIZE": "160", "ENGINE": "torch"}

Environment = dict[str, str]


@pytest.fixture
def images(image_server: ServedFolder, bccd_files: list[Path]) -> list[str]:
    """The addresses of six photographs."""
    for path in bccd_files[:6]:
        (image_server.path / path.name).write_bytes(path.read_bytes())
    return [f"{image_server.url}/{path.name}" for path in bccd_files[:6]]


@dataclass(frozen=True)
class Commands:
    """Runs commands on a project."""

    environment: Environment
    cwd: Path

    def run(self, command: str, project: int, *options: str | Path) -> Done:
        return run_command(command, "-p", str(project), *options, environment=self.environment, cwd=self.cwd)

    def run_alone(self, command: str, project: int) -> Done:
        """In a process of its own."""
        return run_process(command, "-p", str(project), environment=self.environment, cwd=self.cwd)

    def json(self, command: str, project: int, *options: str | Path) -> Any:
        return run_json(command, "-p", str(project), *options, environment=self.environment, cwd=self.cwd)

    def start(self, command: str, project: int) -> subprocess.Popen[str]:
        return start_command(command, "-p", str(project), environment=self.environment, cwd=self.cwd)


@pytest.fixture
def quick(command_environment: Environment, tmp_path: Path) -> Commands:
    return Commands(command_environment | QUICK, tmp_path)


@pytest.fixture
def either(either_environment: Environment, tmp_path: Path) -> Commands:
    return Commands(either_environment, tmp_path)


def new_project(client: StudioClient, images: list[str]) -> tuple[int, list[int]]:
    """A project with a task for each image; its id, and the tasks' in order."""
    project = client.create_project("prelabel")
    client.import_tasks(project, [{"data": {"image": address}} for address in images])
    return project, [int(task["id"]) for task in client.tasks(project)]


def store(client: StudioClient, project: int, version: str, scores: dict[int, float]) -> None:
    """Store empty predictions with these scores, by the ids of their tasks."""
    predictions = [
        {"task": task_id, "result": [], "score": score, "model_version": version} for task_id, score in scores.items()
    ]
    client.call("POST", f"/api/projects/{project}/import/predictions", json=predictions)


def versions(client: StudioClient, project: int) -> dict[int, list[str]]:
    """The versions of the predictions that each task holds."""
    return {
        task_id: sorted(prediction["model_version"] for prediction in predictions)
        for task_id, predictions in client.predictions(project).items()
    }


@pytest.fixture(scope="module")
def listed(client: StudioClient) -> tuple[int, list[int]]:
    """Six tasks: 0.2, then 0.9 by an older version; 0.5; 0.8; none; none, but labelled; an upload's address."""
    addresses = [f"https://images.test/{number}.jpg?signature=abc" for number in range(5)]
    project, ids = new_project(client, [*addresses, "/data/upload/1/0123abcd-a [1].jpg"])
    store(client, project, OLD, {ids[0]: 0.9})
    store(client, project, OTHER, {ids[0]: 0.2, ids[1]: 0.5, ids[2]: 0.8})
    client.call("POST", f"/api/tasks/{ids[4]}/annotations/", json={"result": []})
    return project, ids


def test_tasks_as_json_csv_and_table(listed: tuple[int, list[int]], either: Commands) -> None:
    project, ids = listed
    rows = either.json("tasks", project)
    assert [row["id"] for row in rows] == ids
    assert {key: value for key, value in rows[0].items() if key != "created_at"} == {
        "id": ids[0],
        "image": "https://images.test/0.jpg?...",
        "predictions": 2,
        "model_version": OTHER,
        "score": 0.2,
        "annotations": 0,
        "file": "0.jpg",
    }
    assert rows[0]["created_at"].startswith("20")
    assert [row["annotations"] for row in rows] == [0, 0, 0, 0, 1, 0]
    assert [row["score"] for row in rows] == [0.2, 0.5, 0.8, None, None, None]
    narrow = Commands(either.environment | {"COLUMNS": "80"}, either.cwd)
    written, shown = either.run("tasks", project, "--csv").stdout, narrow.run_alone("tasks", project).stdout
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    assert list(csv.DictReader(io.StringIO(written))) == as_text
    assert re.search(r"^ *\d+ +a \[1\]\.jpg ", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.endswith("6 tasks of prelabel\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--without-predictions"], [3, 4, 5]),
        (["--without-annotations"], [0, 1, 2, 3, 5]),
        (["--without-predictions", "--without-annotations"], [3, 5]),
        (["--min-score", "0.5"], [1, 2]),
        (["--max-score", "0.5"], [0, 1]),
        (["--min-score", "0.3", "--max-score", "0.6"], [1]),
        (["--min-score", "0.3", "--model-version", OLD], [0]),
        (["--min-score", "0"], [0, 1, 2]),
        (["--newest"], [5, 4, 3, 2, 1, 0]),
        (["--newest", "--limit", "2"], [5, 4]),
        (["--max-score", "1", "--limit", "2"], [0, 1]),
        (["--without-predictions", "--min-score", "0"], []),
    ],
)
def test_filters(
    options: list[str],
    expected: list[int],
    listed: tuple[int, list[int]],
    command_environment: Environment,
) -> None:
    project, ids = listed
    done = CliRunner().invoke(app, ["tasks", "-p", str(project), "--csv", *options], env=command_environment)
    assert done.exit_code == 0
    assert [int(row["id"]) for row in csv.DictReader(io.StringIO(done.stdout))] == [ids[number] for number in expected]


@pytest.mark.parametrize("command", ["tasks", "prelabel"])
@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["-p", "99999"], {}, "shows the token's user no project 99999, but "),
        (["-p", "no such title"], {}, 'No project is called "no such title"'),
        (["-p", "1"], {"LABEL_STUDIO_API_KEY": "0" * 40}, "refuses the token"),
        (["-p", "1"], {"LABEL_STUDIO_API_KEY": ""}, "Set LABEL_STUDIO_API_KEY"),
        (["-p", "1", "--url", "http://127.0.0.1:9"], {}, "doesn't answer at http://127.0.0.1:9 (connection refused)"),
    ],
)
def test_what_cant_be_done_is_one_line(
    command: str,
    options: list[str],
    environment: Environment,
    expected: str,
    command_environment: Environment,
    tmp_path: Path,
) -> None:
    done = run_command(command, *options, environment=command_environment | environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


@pytest.mark.parametrize("either_environment", ["personal access token", "legacy token"], indirect=True)
def test_a_click_has_nothing_left_to_do(
    client: StudioClient,
    backend: BackendServer,
    images: list[str],
    bccd_files: list[Path],
    local_files: Path,
    either: Commands,
) -> None:
    project, _ = new_project(client, images[:2])
    client.upload(project, bccd_files[6:8])
    (local_files / "cells").mkdir(exist_ok=True)
    (local_files / "cells" / "8.jpg").write_bytes(bccd_files[8].read_bytes())
    client.call("POST", "/api/storages/localfiles", json={"project": project, "path": str(local_files / "cells")})
    client.import_tasks(project, [{"data": {"image": "/data/local-files/?d=cells/8.jpg"}}])

    report = either.json("prelabel", project)

    assert {key: report[key] for key in ("predicted", "stored", "already", "failed")} == {
        "predicted": 5,
        "stored": 5,
        "already": 0,
        "failed": [],
    }
    stored = client.predictions(project)
    judge = LabelInterface(BCCD_CONFIG)
    for (prediction,) in stored.values():
        assert prediction["model_version"] == report["model_version"]
        assert len(prediction["result"]) > 3
        assert not judge.validate_prediction(prediction, return_errors=True)
    client.connect(project, backend.url)
    asked = metric(backend.url, 'yolo_tasks_total{outcome="predicted"}')
    client.retrieve_predictions(project)
    assert metric(backend.url, 'yolo_tasks_total{outcome="predicted"}') == asked
    assert client.predictions(project) == stored
    # And where there is something to do, the server's boxes are the same.
    for (prediction,) in stored.values():
        client.call("DELETE", f"/api/predictions/{prediction['id']}/")
    client.retrieve_predictions(project)
    again = client.predictions(project)
    assert {task_id: boxes(held) for task_id, (held,) in again.items()} == {
        task_id: boxes(held) for task_id, (held,) in stored.items()
    }
    assert {held["model_version"] for (held,) in again.values()} == {report["model_version"]}


def test_failures_are_listed_and_the_rest_is_stored(client: StudioClient, images: list[str], quick: Commands) -> None:
    missing = [images[0].replace(".jpg", f"-{number}.jpg?key=secret") for number in range(2)]
    project, ids = new_project(client, [images[0], *missing, "nothing"])

    done = quick.run("prelabel", project)

    assert done.returncode == 1
    assert "1 of 4 tasks predicted, 1 predictions stored" in done.stdout
    assert re.search(r"2 tasks are not predicted: 127\.0\.0\.1:\d+ has no such image \(404\)\n", done.stdout)
    assert f"  {ids[1]}  {missing[0].partition('?')[0]}?...\n" in done.stdout
    assert "1 task is not predicted: the task's value is neither an address nor a path" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    report = quick.run("prelabel", project, "--json")
    assert report.returncode == 1
    failed = json.loads(report.stdout)["failed"]
    assert sorted((one["task"], one["kind"]) for one in failed) == [
        (ids[1], "not_found"),
        (ids[2], "not_found"),
        (ids[3], "unsupported"),
    ]


def test_dry_run_limit_and_filters(client: StudioClient, images: list[str], quick: Commands) -> None:
    project, ids = new_project(client, images)
    store(client, project, OTHER, {ids[0]: 0.2, ids[1]: 0.8})

    outlook = quick.json("prelabel", project, "--dry-run", "--without-predictions")
    assert outlook["to_predict"] == 4
    assert client.total_predictions(project) == 2

    report = quick.json("prelabel", project, "--max-score", "0.5")
    assert (report["predicted"], report["stored"]) == (1, 1)
    version = report["model_version"]
    assert versions(client, project)[ids[0]] == [version, OTHER]
    report = quick.json("prelabel", project, "--newest", "--limit", "2")
    assert (report["predicted"], report["already"]) == (2, 1)
    held = versions(client, project)
    assert [number for number, task_id in enumerate(ids) if version in held[task_id]] == [0, 4, 5]


def test_versions_says_what_each_is(client: StudioClient, images: list[str], quick: Commands) -> None:
    """A version is a digest: what it was made of is known where it was served."""
    project, ids = new_project(client, images[:2])
    store(client, project, OTHER, dict.fromkeys(ids, 0.5))
    store(client, project, OLD, {ids[0]: 0.5})
    version = quick.json("prelabel", project, "--limit", "1")["model_version"]

    told = quick.json("versions", project)
    narrow, wide = (
        Commands(quick.environment | {"COLUMNS": columns}, quick.cwd).run_alone("versions", project).stdout
        for columns in ("80", "200")
    )

    assert told["serves"] == version
    found = {one["model_version"]: one for one in told["versions"]}
    assert {each: one["predictions"] for each, one in found.items()} == {OTHER: 2, OLD: 1, version: 1}
    assert [found[each]["is_own"] for each in (OTHER, OLD, version)] == [False, True, True]
    assert found[OTHER]["served"] is found[OLD]["served"] is None
    (control,) = found[version]["served"]["controls"]
    assert len(control["fingerprint"]) == 64
    assert control["thresholds"] == {"RBC": 0.25, "WBC": 0.25, "Platelets": 0.25}
    assert re.search(rf"{version} .* serves now; \S+ \([0-9a-f]{{8}}\) at [0-9]+ px, above 0\.25; since 20", wide)
    assert max(map(len, narrow.splitlines())) <= 80


def test_replace_deletes_what_this_backend_said_before(
    client: StudioClient, images: list[str], quick: Commands
) -> None:
    """Also of tasks that held the new version already; where a task fails, it keeps the old one."""
    project, ids = new_project(client, [*images[:3], "nothing"])
    store(client, project, OLD, dict.fromkeys(ids, 0.5))
    store(client, project, OTHER, dict.fromkeys(ids, 0.5))
    version = quick.json("prelabel", project, "--limit", "1")["model_version"]
    assert versions(client, project)[ids[0]] == sorted([OLD, version, OTHER])

    outlook = quick.run("prelabel", project, "--replace", "--dry-run")
    assert f"4 predictions of {OLD} would be deleted" in outlook.stdout
    done = quick.run("prelabel", project, "--replace")

    assert done.returncode == 1
    assert (
        f"Where a task has a prediction of {version}, these are deleted:\n  4 of {OLD}, the newest of 20" in done.stderr
    )
    assert "3 predictions of other versions deleted" in done.stdout
    expected = dict.fromkeys(ids[:3], sorted([version, OTHER])) | {ids[3]: sorted([OLD, OTHER])}
    assert versions(client, project) == expected

    client.call("DELETE", f"/api/tasks/{ids[3]}/")
    store(client, project, OLD, dict.fromkeys(ids[:3], 0.5))
    assert quick.json("prelabel", project, "--replace")["deleted"] == 3  # all, so in one go
    assert versions(client, project) == dict.fromkeys(ids[:3], sorted([version, OTHER]))


def test_pictures(
    client: StudioClient, images: list[str], bccd_files: list[Path], command_environment: Environment, tmp_path: Path
) -> None:
    commands = Commands(command_environment, tmp_path)
    project, ids = new_project(client, [images[0], images[1] + "?key=secret", "nothing"])
    folder = tmp_path / "new" / "pictures"

    done = commands.run("prelabel", project, "--out", folder)

    assert done.returncode == 1
    names = [f"{task_id}-{Path(address).stem}.jpg" for task_id, address in zip(ids, images[:2], strict=False)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    with Image.open(folder / names[0]) as drawn:
        assert drawn.size == (640, 480)
        red, green, _ = np.moveaxis(np.asarray(drawn).astype(int), 2, 0)
    with Image.open(bccd_files[0]) as photo:
        red_before, green_before, _ = np.moveaxis(np.asarray(photo).astype(int), 2, 0)
    # The first label is drawn in red, which no cell is.
    assert (red - green > 100).sum() > 500 > (red_before - green_before > 100).sum()
    (tmp_path / "file").write_text("")
    done = commands.run("prelabel", project, "--out", tmp_path / "file" / "x")
    assert done.returncode == 2
    assert "can't be made" in done.stderr


def wait_for_predictions(client: StudioClient, project: int, count: int, process: subprocess.Popen[str]) -> int:
    """How many predictions are stored, as soon as there are so many."""
    while (stored := client.total_predictions(project)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return stored


@pytest.mark.proof
@pytest.mark.parametrize(("kills", "count"), [(2, 1000), (3, 3000)])
def test_killed_again_and_again_each_task_has_one_prediction(
    client: StudioClient, images: list[str], quick: Commands, kills: int, count: int
) -> None:
    project, _ = new_project(client, [f"{images[number % 6]}?{number}" for number in range(count)])
    for kill in range(kills):
        before = client.total_predictions(project)
        with quick.start("prelabel", project) as process:
            wait_for_predictions(client, project, before + 200, process)
            time.sleep(0.2 * kill)  # so that the next import is under way, or not
            process.kill()
        assert client.total_predictions(project) < count

    report = quick.json("prelabel", project)

    assert report["stored"] > 0
    assert report["stored"] + report["already"] == count
    held = Counter(tuple(each) for each in versions(client, project).values())
    assert held == {(report["model_version"],): count}
    rows = quick.json("tasks", project, "--max-score", "1")
    assert len({row["id"] for row in rows}) == len(rows) == count


def test_an_import_that_ended_after_its_client_is_mended(
    client: StudioClient, images: list[str], quick: Commands
) -> None:
    """Twice the same version is what is left of it; the first prediction stays, and those of other versions."""
    project, ids = new_project(client, images[:3])
    version = quick.json("prelabel", project, "--limit", "2")["model_version"]
    first = {held["id"] for predictions in client.predictions(project).values() for held in predictions}
    store(client, project, version, {ids[0]: 0.1, ids[1]: 0.1})
    store(client, project, OTHER, {ids[0]: 0.1})

    quick.json("prelabel", project)

    assert versions(client, project) == {
        ids[0]: sorted([version, OTHER]),
        ids[1]: [version],
        ids[2]: [version],
    }
    assert first < {held["id"] for predictions in client.predictions(project).values() for held in predictions}


def test_ctrl_c_stores_what_is_ready(
    client: StudioClient, serve: StartServer, bccd_files: list[Path], quick: Commands
) -> None:
    content = bccd_files[0].read_bytes()

    def answer_late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        reply(content)(handler)

    server = serve(answer_late)
    project, _ = new_project(client, [f"{server.url}/{number}.jpg" for number in range(300)])
    with quick.start("prelabel", project) as process:
        while len(server.requests) < 60:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping: what is ready is stored" in stderr
    stored = client.total_predictions(project)
    assert 16 <= stored < 300
    assert f"{stored} predictions stored" in stdout
    assert "of 300 tasks predicted" in stdout

    report = quick.json("prelabel", project, "--limit", "5")
    assert report["already"] == stored
    assert max(len(held) for held in versions(client, project).values()) == 1


@pytest.fixture
def doorway(label_studio: LabelStudioServer) -> Iterator[Doorway]:
    made = Doorway(label_studio.url)
    made.open()
    yield made
    made.close()


class Doorway:
    """A reverse proxy in front of Label Studio that can be shut, which looks as if Label Studio were restarted."""

    def __init__(self, url: str) -> None:
        self.port = pick_port(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self._target = url
        self._server: ThreadingHTTPServer | None = None

    def open(self) -> None:
        target = self._target

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                answer = requests.request(self.command, target + self.path, data=body, headers=headers, timeout=60)
                reply(answer.content, answer.status_code, Content_Type=answer.headers["Content-Type"])(self)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.mark.proof
def test_label_studio_goes_away_and_comes_back(
    client: StudioClient,
    doorway: Doorway,
    images: list[str],
    bccd_files: list[Path],
    quick: Commands,
) -> None:
    """The first page of tasks is under way then; half of the images are uploads, which can't be had meanwhile."""
    uploads = client.create_project("uploads")
    client.upload(uploads, bccd_files[:2])
    own = [str(task["data"]["image"]) for task in client.tasks(uploads)]
    addresses = [f"{(own if number % 2 else images)[number // 2 % 2]}?{number}" for number in range(600)]
    project, _ = new_project(client, addresses)
    behind = replace(quick, environment=quick.environment | {"LABEL_STUDIO_URL": doorway.url})
    with behind.start("prelabel", project) as process:
        stored = wait_for_predictions(client, project, 1, process)
        doorway.close()
        time.sleep(5)
        assert client.total_predictions(project) < 600
        doorway.open()
        stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stdout + stderr
    assert stored < 600
    assert "Waiting for it, 10 minutes at most" in stderr
    assert "Label Studio answers again: going on" in stderr
    assert "600 of 600 tasks predicted, 600 predictions stored" in stdout
    assert {len(held) for held in versions(client, project).values()} == {1}
