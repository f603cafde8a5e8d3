"""`register`, interrupted by a real Ctrl-C in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.harness.command import start_command
from tests.harness.http_server import StartServer, reply
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.cli.common import INTERRUPTED

WAIT_S = 60


def test_ctrl_c_tells_how_many_are_registered(serve: StartServer, tmp_path: Path) -> None:
    """At the second import, which isn't answered any more."""
    imports: list[int] = []
    processes: list[subprocess.Popen[str]] = []
    is_told = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        content: dict[str, Any] = {"title": "Cells", "label_config": BCCD_CONFIG, "tasks": []}
        if handler.command == "POST":
            if imports:
                processes[0].send_signal(signal.SIGINT)
                is_told.wait(WAIT_S)
                return
            imports.append(len(json.loads(server.requests[-1].body)))
            content = {"task_ids": list(range(imports[0]))}
        reply(json.dumps(content).encode())(handler)

    server = serve(answer)
    (tmp_path / "all.txt").write_text("\n".join(f"s3://bucket/{number}.jpg" for number in range(1100)))
    environment = {"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": "0" * 40}
    command = ("register", "all.txt", "-p", "1", "--json")
    # Where the tests run behind a shell's prompt, what they start would ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = start_command(*command, environment=environment, cwd=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        processes.append(process)
        stdout, stderr = process.communicate(timeout=WAIT_S)
    is_told.set()
    assert process.returncode == INTERRUPTED
    told = "Interrupted: 500 of 1,100 were registered, perhaps some more. Run it again after two minutes"
    assert (stderr, stdout) == (f"{told} for the rest\n", "")
