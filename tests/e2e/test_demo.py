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

import pytest
import requests
from PIL import Image

from tests.harness.stack import ROOT

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


def test_the_demo_check_passes() -> None:
    finished = subprocess.run([*DEMO, "--check"], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "The demo check passed" in finished.stdout
    with Image.open(ROOT / "demo-output" / "predictions.png") as sheet:
        assert sheet.width > 1000
        assert len(sheet.getcolors(10**7) or []) > 1000


@pytest.mark.usefixtures("taken_port")
def test_the_demo_stays_up_until_ctrl_c_and_leaves_nothing_behind() -> None:
    process = subprocess.Popen(
        DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    timer = threading.Timer(400, process.terminate)
    timer.start()
    try:
        assert process.stdout is not None
        output = ""
        while "Ctrl-C stops both" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        assert "Port 8080 is taken" in output
        urls = re.findall(r"http://127\.0\.0\.1:\d+", output)
        assert len(set(urls)) == 2
        login = {name: re.search(rf"{name}:\s+(\S+)", output) for name in ("login", "password")}
        assert all(login.values())
        for url in urls:
            assert requests.get(f"{url}/health", timeout=30).ok
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(60) == 0
        for url in urls:
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{url}/health", timeout=5)
    finally:
        timer.cancel()
        process.terminate()  # not killed, for it has servers to stop
        process.wait(60)
        if process.stdout:
            process.stdout.close()
