"""`yolo-backend serve`: one's own class, what holds up the port and what doesn't, and what can't be served."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.harness.http_server import http_servers, reply
from tests.harness.stack import ROOT, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.connecting.connect import ConnectError, class_names_of
from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.server import startup

YOLO_BACKEND = str(Path(sys.executable).with_name("yolo-backend"))
OWN = """
from yolo_backend.model import YoloBackend

class Loud(YoloBackend):
    def predict(self, tasks, context=None, **kwargs):
        return [{"result": [], "score": 0.125, "model_version": "loud"} for _ in tasks]
"""
SLOW = "import pathlib, time\ntime.sleep(6)\npathlib.Path('imported').touch()\n" + OWN


@contextmanager
def serving(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[str]:
    """The server, started in this folder; its address, as soon as the port is open."""
    port = pick_port(0)
    command = [YOLO_BACKEND, "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([*command, *arguments], cwd=folder, env=environment, stdout=log, stderr=log) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            while True:
                try:
                    requests.get(f"{url}/health", timeout=30)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def environment(bccd_environment: dict[str, str]) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "YOLO_OFFLINE": "true", **bccd_environment}


def predict(url: str) -> requests.Response:
    body = {"tasks": [{"id": 1, "data": {"image": "x"}}], "label_config": BCCD_CONFIG, "project": "1.1"}
    return requests.post(f"{url}/predict", json=body, timeout=60)


def test_a_class_of_the_current_folder_serves_and_its_import_holds_up_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "loud.py").write_text(SLOW)
    with serving(tmp_path, environment, "--model", "loud:Loud") as url:
        assert not (tmp_path / "imported").exists()  # the port is open, and somebody answers there
        started_at = time.monotonic()
        health = requests.get(f"{url}/health", timeout=1)
        assert health.status_code == 200 or health.reason == "Loading bccd.pt, try again"
        assert time.monotonic() - started_at < 1
        assert not (tmp_path / "imported").exists()
        (prediction,) = predict(url).json()["results"]  # waits for the class
        assert prediction["model_version"] == "loud"
        wait_until_ready(url)
        health = requests.get(f"{url}/health", timeout=1)
        assert (health.status_code, health.json()) == (200, {"status": "UP", "model_class": "Loud"})


def test_who_asks_for_predictions_before_the_class_is_there_is_answered_by_the_deadline(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "loud.py").write_text(SLOW)
    with serving(tmp_path, environment | {"MODEL_CLASS": "loud:Loud", "PREDICT_DEADLINE_SECONDS": "1"}) as url:
        assert predict(url).json() == {"results": [[]]}
        assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("source", ["import no_such_module_anywhere", "1 / 0", "class Other: pass"])
def test_a_class_that_cannot_be_imported_is_told_where_label_studio_shows_it(
    tmp_path: Path, environment: dict[str, str], source: str
) -> None:
    (tmp_path / "broken_one.py").write_text(source)
    with serving(tmp_path, environment, "--model", "broken_one:Loud") as url:
        for _ in range(100):
            health = requests.get(f"{url}/health", timeout=10)
            if not health.ok and not str(health.reason).startswith("Loading"):
                break
            time.sleep(0.1)
        assert health.status_code == 503
        assert re.fullmatch(r"The class Loud can't be imported \(\w+Error\): see the backend's log", str(health.reason))
        answer = predict(url)
        assert (answer.status_code, answer.reason) == (500, health.reason)
        assert "Traceback" not in answer.text


def test_a_module_that_is_not_there_stops_the_start(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [YOLO_BACKEND, "serve", "--model", "nowhere:Loud"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 4
    why = f"MODEL_CLASS (--model) nowhere:Loud: no module nowhere is installed, or in {tmp_path}"
    assert done.stderr == f"The backend can't start: {why}\n"


def test_several_workers_train_only_with_a_configured_token(tmp_path: Path, environment: dict[str, str]) -> None:
    """Label Studio tells its own to one of them, and Start Training may reach another one."""
    wanted = {**environment, "WORKERS": "2", "TRAINING": "on"}
    wanted.pop("LABEL_STUDIO_API_KEY", None)
    done = subprocess.run(
        [YOLO_BACKEND, "serve"], cwd=tmp_path, env=wanted, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 4
    assert done.stderr == (
        "The backend can't start: WORKERS=2 with TRAINING=on needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, because "
        "Label Studio sends its token to one worker only: set both, or WORKERS=1\n"
    )


@pytest.mark.proof
@pytest.mark.usefixtures("no_way_out")
def test_a_release_that_cannot_be_downloaded_is_told_while_it_serves_and_tried_again(
    tmp_path: Path, environment: dict[str, str], bccd_weights: Path
) -> None:
    models = tmp_path / "models"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:1")
    environment |= {"MODEL_NAME": "yolo26n.pt", "MODEL_ROOT": str(models), "NO_PROXY": "127.0.0.1", **proxies}
    with serving(tmp_path, environment, "--keep-trying") as url:
        ends_at = time.monotonic() + 60
        while (health := requests.get(f"{url}/health", timeout=10)).reason.startswith("Loading"):
            assert time.monotonic() < ends_at
            time.sleep(0.1)
        assert health.status_code == 503
        why = "Weights yolo26n.pt are not in MODEL_ROOT, and downloading the Ultralytics release failed ("
        assert str(health.reason).startswith(why)
        with pytest.raises(ConnectError, match="downloading the Ultralytics release failed"):
            class_names_of(RemoteBackend(url), timeout_s=60)
        assert f"[ERROR] [yolo_backend.detection.catalog] [-] {why}" in (tmp_path / "log").read_text()
        shutil.copy(bccd_weights, models / "yolo26n.pt")  # as the reason says
        wait_until_ready(url)
        assert class_names_of(RemoteBackend(url), timeout_s=60) == ["RBC", "WBC", "Platelets"]


@pytest.mark.parametrize("name", ["mine.pt", "../x.pt", "what.zip"])
def test_weights_that_no_trying_brings_stop_the_start(tmp_path: Path, environment: dict[str, str], name: str) -> None:
    done = subprocess.run(
        [YOLO_BACKEND, "serve", "--keep-trying"],
        cwd=tmp_path,
        env=environment | {"MODEL_NAME": name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.startswith("The backend can't start: ")


def test_a_model_py_of_the_current_folder_is_not_served_unasked(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "model.py").write_text("raise AssertionError('this one was not asked for')")
    with serving(tmp_path, environment, "--check") as url:
        wait_until_ready(url)
        assert requests.get(f"{url}/health", timeout=10).json()["model_class"] == "YoloBackend"
        assert predict(url).json() == {"results": [[]]}
    assert "not asked for" not in (tmp_path / "log").read_text()


def refused(folder: Path, environment: dict[str, str], *command: str) -> str:
    """What a start that ends at once says."""
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removesuffix("\n")


@pytest.mark.parametrize("by", ["serve", "_wsgi.py", "debug"])
def test_a_port_that_is_taken_is_named_at_once(tmp_path: Path, environment: dict[str, str], by: str) -> None:
    with http_servers() as start:
        port = str(start(reply(b"another program's")).port)
        command = [sys.executable, str(ROOT / "_wsgi.py")] if by == "_wsgi.py" else [YOLO_BACKEND, "serve"]
        more = ["--debug"] if by == "debug" else []
        started_at = time.monotonic()
        told = refused(tmp_path, environment, *command, "--host", "127.0.0.1", "--port", port, *more)
        assert time.monotonic() - started_at < 15
    assert told == (
        f"The backend can't start: port {port} is taken: stop what listens there, or choose another one with --port "
        "(PORT)"
    )


def test_a_port_that_another_backend_has_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    with serving(tmp_path, environment) as url:
        port = url.rpartition(":")[2]
        told = refused(tmp_path, environment, YOLO_BACKEND, "serve", "--port", port)
    assert told.startswith(f"The backend can't start: port {port} is taken by another of these backends: stop ")


def test_a_host_of_another_machine_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    told = refused(tmp_path, environment, YOLO_BACKEND, "serve", "--host", "203.0.113.7")
    assert told == (
        "The backend can't start: --host 203.0.113.7 is no address of this machine: leave it out, and all of them are "
        "listened on"
    )


@pytest.mark.parametrize("variable", ["LISTEN_FDS", "GUNICORN_FD"])
def test_a_port_that_was_handed_on_is_not_taken(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """By systemd, or at an upgrade by the gunicorn before this one, whose socket it is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(SystemExit):
            startup._check_port("127.0.0.1", port)
        monkeypatch.setenv(variable, "3")
        startup._check_port("127.0.0.1", port)


def test_what_is_wrong_with_the_folder_of_uploads_is_told_and_it_starts_all_the_same(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    given = environment | {"LABEL_STUDIO_URL": "http://127.0.0.1:1", "LABEL_STUDIO_MEDIA_ROOT": str(tmp_path / "media")}
    with serving(tmp_path, given) as url:
        trouble = (
            f"LABEL_STUDIO_MEDIA_ROOT ({tmp_path}/media) can't be read (No such file or directory): name the folder "
            "that holds upload/, in Label Studio's data folder it is media/"
        )
        assert f"{trouble}. Meanwhile uploads are fetched from Label Studio\n" in (tmp_path / "log").read_text()
        assert requests.get(url, timeout=30).json()["uploads"] == trouble
        (tmp_path / "media" / "upload").mkdir(parents=True)
        ends_at = time.monotonic() + 30
        while (told := requests.get(url, timeout=30).json()["uploads"]) is not None:  # that of before is reused for 2 s
            assert time.monotonic() < ends_at, told
            time.sleep(0.2)
