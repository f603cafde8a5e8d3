"""How the backend starts, and how it says that it can't."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from tests.harness.stack import ROOT, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG

PYTHON_WSGI = [sys.executable, str(ROOT / "_wsgi.py")]
GUNICORN = [sys.executable, "-m", "gunicorn", "--chdir", str(ROOT), "_wsgi:app"]
GUNICORN_SOMEWHERE = [*GUNICORN, "--bind", "127.0.0.1:0"]


def start(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not re.match(r"MODEL_|LABEL_STUDIO_", name)}
    return subprocess.run(
        command, env={**kept, **environment}, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


# What can't start, and the line that says why.
MISFITS = [
    ({"MODEL_NAME": "mine.pt"}, "Weights mine.pt are not in .*put the file there"),
    ({"MODEL_NAME": "yolo26n.pt"}, "Weights yolo26n.pt are not in .*downloading the Ultralytics release failed"),
    (
        {"MODEL_NAME": "../x.pt"},
        "MODEL_NAME is a bare file name in MODEL_ROOT: set MODEL_ROOT=.. and MODEL_NAME=x.pt",
    ),
    ({"MODEL_NAME": " yolov11n.pt "}, "Weights yolov11n.pt are not in MODEL_ROOT: did you mean yolo11n.pt"),
    ({"MODEL_NAME": "demo", "MODEL_SCORE_THRESHOLD": "high"}, "MODEL_SCORE_THRESHOLD: .*'high'"),
    (
        {"MODEL_NAME": "demo", "LABEL_STUDIO_API_KEY": "s3cret"},
        "LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL",
    ),
]


@pytest.mark.usefixtures("no_way_out")
@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        *((PYTHON_WSGI, *misfit) for misfit in MISFITS),
        *((GUNICORN_SOMEWHERE, *misfit) for misfit in (MISFITS[0], MISFITS[-1])),
        *(pytest.param(GUNICORN_SOMEWHERE, *misfit, marks=pytest.mark.proof) for misfit in MISFITS[1:-1]),
    ],
)
def test_what_stops_the_start_is_told_in_one_line(
    command: list[str], environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    finished = start(command, {"MODEL_ROOT": str(tmp_path), **environment}, tmp_path)

    assert finished.returncode != 0
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("The backend can't start:")]
    assert re.search(expected, line)
    assert "Traceback" not in finished.stderr
    assert "s3cret" not in finished.stderr + finished.stdout


def test_check_loads_the_weights_first(bccd_weights: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bccd_weights) as whole, zipfile.ZipFile(tmp_path / "broken.pt", "w") as archive:
        for name in whole.namelist():
            if not name.endswith("/data/0"):  # right at first sight
                archive.writestr(name, whole.read(name))
    environment = {"MODEL_NAME": "broken.pt", "MODEL_ROOT": str(tmp_path)}

    finished = start([*PYTHON_WSGI, "--check"], environment, tmp_path)

    assert finished.returncode == 4
    assert re.search(
        r"The backend can't start: Weights broken\.pt are broken, or only half downloaded: \S", finished.stderr
    )


@pytest.mark.proof
def test_the_templates_flags_become_settings(bccd_weights: Path, bccd_files: list[Path], tmp_path: Path) -> None:
    port = pick_port(0)
    flags = ["-p", str(port), "--host", "127.0.0.1", "--log-level", "WARNING", "--check", "--with"]
    flags += [
        f"model_name={bccd_weights.name}",
        f"model_root={bccd_weights.parent}",
        "basic_auth_user=ann",
        "basic_auth_pass=pw",
    ]
    process = subprocess.Popen([*PYTHON_WSGI, *flags], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "bccd.pt: detect weights of 3 classes, ready\n"
        retrying = requests.Session()
        retrying.mount(
            "http://", requests.adapters.HTTPAdapter(max_retries=requests.adapters.Retry(20, backoff_factor=0.1))
        )
        assert retrying.get(f"http://127.0.0.1:{port}/", timeout=10).status_code == 401
        answer = retrying.get(f"http://127.0.0.1:{port}/", auth=("ann", "pw"), timeout=10)
        assert answer.json()["model"] == "bccd.pt"
        image = "data:image/jpeg;base64," + base64.b64encode(bccd_files[0].read_bytes()).decode()
        body = {"tasks": [{"id": 1, "data": {"image": image}}], "label_config": BCCD_CONFIG, "project": "1.1"}
        url = f"http://127.0.0.1:{port}/predict"
        (prediction,) = retrying.post(url, json=body, auth=("ann", "pw"), timeout=60).json()["results"]
        assert len(prediction["result"]) > 3
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        if process.stdout:
            process.stdout.close()


def test_the_servers_log_holds_no_token(bccd_environment: dict[str, str], tmp_path: Path) -> None:
    environment = {
        **bccd_environment,
        "LOG_LEVEL": "DEBUG",
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",  # nobody answers there
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
        "LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "BASIC_AUTH_USER": "ann",
        "BASIC_AUTH_PASS": "open-sesame",
    }
    task = {"id": 1, "data": {"image": "http://127.0.0.1:9/x.jpg?signature=presigned"}}
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as server:
        login = ("ann", "open-sesame")
        while requests.get(server.url, auth=login, timeout=10).json()["status"] != "UP":
            time.sleep(0.1)
        setup = {
            "project": "1.1",
            "schema": BCCD_CONFIG,
            "hostname": "http://x",
            "access_token": "fedcba98765432100123",
        }
        requests.post(f"{server.url}/setup", json=setup, auth=login, timeout=10)
        other = {"id": 2, "data": {"image": "http://127.0.0.1:8/x.jpg?signature=presigned"}}
        body = {"tasks": [task, other], "label_config": BCCD_CONFIG, "project": "1.1"}
        answer = requests.post(f"{server.url}/predict", json=body, auth=login, timeout=60)
        pages = requests.get(f"{server.url}/metrics", auth=login, timeout=10).text
    assert answer.json() == {"results": [[], []]}
    log = (tmp_path / "backend.log").read_text()
    assert "Project 1: Label Studio doesn't answer at LABEL_STUDIO_URL" in log
    assert "Task 2 is not predicted: http://127.0.0.1:8/x.jpg?...: 127.0.0.1:8 refuses the connection" in log
    for secret in ("0123456789abcdef", "fedcba9876543210", "open-sesame", "presigned"):
        assert secret not in log + pages


def test_what_a_stranger_wrote_stays_in_its_line(bccd_environment: dict[str, str], tmp_path: Path) -> None:
    environment = {**bccd_environment, "LOG_LEVEL": "DEBUG"}
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as server:
        body = {"action": "X\n[2026-11-22] [ERROR] [forged] a line", "project": {"id": 1}}
        assert requests.post(f"{server.url}/webhook", json=body, timeout=10).ok
        ends_at = time.monotonic() + 60  # fit waits for the class, which is imported in the background
        while "forged" not in server.log.read_text() and time.monotonic() < ends_at:
            time.sleep(0.1)
    (line,) = [line for line in (tmp_path / "backend.log").read_text().splitlines() if "forged" in line]
    assert re.search(r" \[DEBUG\] \[yolo_backend\.server\.fitting\] \[[a-z2-7]{8}\] Project 1: X \[2026-11-22\]", line)


# gunicorn's own command


@contextmanager
def gunicorn(
    folder: Path, log: Path, environment: dict[str, str], *options: str
) -> Iterator[tuple[str, psutil.Process]]:
    """The address, and the process whose children serve; started in this folder, and asked nothing yet."""
    port = pick_port(0)
    command = [*GUNICORN, "--bind", f"127.0.0.1:{port}", "--timeout", "300", "--no-control-socket", *options]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=out, stderr=out) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def workers_of(parent: psutil.Process, count: int) -> list[psutil.Process]:
    ends_at = time.monotonic() + 60
    workers: list[psutil.Process] = parent.children()
    while len(workers) != count:
        assert time.monotonic() < ends_at
        time.sleep(0.1)
        workers = parent.children()
    return workers


def has_torch(process: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in process.memory_maps())


@pytest.mark.parametrize(
    ("options", "in_repository"),
    [
        ([], True),
        (["--preload"], False),
        pytest.param(["--preload", "--workers", "2", "--threads", "8"], True, marks=pytest.mark.proof),
    ],
)
def test_gunicorns_own_command_serves_also_what_it_preloads(
    options: list[str], in_repository: bool, bccd_environment: dict[str, str], bccd_files: list[Path], tmp_path: Path
) -> None:
    """Threads don't survive the fork of its workers: in the parent there is no model, and none is begun."""
    environment = {**bccd_environment, "ENGINE": "torch"}  # else the workers make an export first
    image = "data:image/jpeg;base64," + base64.b64encode(bccd_files[0].read_bytes()).decode()
    body = {"tasks": [{"id": 1, "data": {"image": image}}], "label_config": BCCD_CONFIG, "project": "1.1"}
    with gunicorn(ROOT if in_repository else tmp_path, tmp_path / "log", environment, *options) as (url, parent):
        workers = workers_of(parent, 2 if "2" in options else 1)
        if in_repository:  # its gunicorn.conf.py lets them read the weights before anybody asks
            ends_at = time.monotonic() + 120
            while not all(has_torch(worker) for worker in workers):
                assert time.monotonic() < ends_at, (tmp_path / "log").read_text()
                time.sleep(0.2)
        for worker in workers:  # each of them, while the others can't answer
            others = [other for other in workers if other != worker]
            for other in others:
                other.suspend()
            assert requests.get(f"{url}/health", timeout=60).status_code in {200, 503}, "up, or loading"
            wait_until_ready(url)
            requests.get(f"{url}/health", timeout=60).raise_for_status()
            (prediction,) = requests.post(f"{url}/predict", json=body, timeout=60).json()["results"]
            assert len(prediction["result"]) > 3
            for other in others:
                other.resume()
        assert parent.children() == workers  # none was started anew
        assert not has_torch(parent)
