"""`make demo` and `make demo-check`, as a newcomer runs them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.harness.stack import ROOT
from tests.harness.studio_client import StudioClient

TITLE = "YOLO demo: nuts, bolts and washers"
DEMO = [sys.executable, "-u", "-m", "yolo_backend.demo"]


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Label Studio's usual port, taken by us or by somebody else on this machine."""
    with socket.socket() as taker:
        # The demo before this one may have left connections in TIME_WAIT.
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            taker.bind(("127.0.0.1", 8080))
            taker.listen()
        yield 8080


@dataclass(frozen=True)
class Told:
    """What a demo that is up has printed."""

    output: str

    @property
    def addresses(self) -> list[str]:
        """Label Studio's address and the backend's."""
        return sorted(set(re.findall(r"http://127\.0\.0\.1:\d+", self.output)))

    def line(self, name: str) -> str:
        found = re.search(rf"{name}:\s+(\S+)", self.output)
        assert found, self.output
        return found[1]


@contextmanager
def demo_until_ctrl_c(folder: Path) -> Iterator[Told]:
    """The demo, up; at the end Ctrl-C stops it, as a terminal does, and it leaves nothing running."""
    process = subprocess.Popen(
        [*DEMO, "--folder", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    timer = threading.Timer(400, process.terminate)
    timer.start()
    try:
        assert process.stdout is not None
        output = ""
        while "Ctrl-C stops both" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        told = Told(output)
        assert len(told.addresses) == 2
        for url in told.addresses:
            assert requests.get(f"{url}/health", timeout=30).ok
        yield told
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        for url in told.addresses:
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{url}/health", timeout=5)
    finally:
        timer.cancel()
        process.terminate()  # not killed, for it has servers to stop
        process.wait(60)
        if process.stdout:
            process.stdout.close()


@pytest.mark.proof
def test_the_demo_check_passes(tmp_path: Path) -> None:
    command = [*DEMO, "--check", "--folder", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "The demo check passed" in finished.stdout
    with Image.open(ROOT / "demo-output" / "predictions.jpg") as sheet:
        assert sheet.width > 1000
        assert len(sheet.getcolors(10**7) or []) > 1000


@pytest.mark.proof  # it starts Label Studio twice
@pytest.mark.usefixtures("taken_port")
def test_the_demo_stays_up_until_ctrl_c_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with demo_until_ctrl_c(tmp_path) as first:
        assert "Port 8080 is taken" in first.output
        studio = studio_of(tmp_path, first)
        project = int(first.line("The project").split("/")[4])
        (task, *_) = studio.tasks(project)
        studio.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": []})

    with demo_until_ctrl_c(tmp_path) as second:
        for name in ("login", "password"):
            assert second.line(name) == first.line(name)
        assert second.line("The project").split("/")[3:] == first.line("The project").split("/")[3:]
        studio = studio_of(tmp_path, second)
        assert [item["title"] for item in studio.call("GET", "/api/projects/")["results"]] == [TITLE]
        assert len(studio.call("GET", f"/api/ml?project={project}")) == 1
        tasks = studio.tasks(project)
        assert [len(task["predictions"]) for task in tasks] == [1] * 24
        assert [item["id"] for item in tasks if item["annotations"]] == [task["id"]]


def studio_of(folder: Path, told: Told) -> StudioClient:
    """The demo's Label Studio, by the token that the demo keeps."""
    token = (folder / "demo" / "label-studio" / "personal-access-token").read_text()
    return StudioClient(told.line("The project").partition("/projects")[0], token)
