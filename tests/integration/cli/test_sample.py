"""`sample` with a real detector: what is told of a run that fails in the middle."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.harness.command import run_command
from tests.harness.http_server import StartServer, reply
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.cli.common import UNUSABLE


def test_what_was_written_before_it_failed_is_told(
    serve: StartServer, bccd_environment: dict[str, str], bccd_files: list[Path], tmp_path: Path
) -> None:
    image = "data:image/jpeg;base64," + base64.b64encode(bccd_files[0].read_bytes()).decode()
    tasks = [{"id": number, "data": {"image": image}} for number in (1, 2)]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        """Label Studio, but for PATCH, which this server knows nothing of."""
        held = tasks if "predictions_model_versions" not in handler.path else []
        body = {"title": "two", "label_config": BCCD_CONFIG, "tasks": held, "total": len(held), "created": 2}
        reply(json.dumps(body).encode(), Content_Type="application/json")(handler)

    settings = {**bccd_environment, "LABEL_STUDIO_URL": serve(answer).url, "LABEL_STUDIO_API_KEY": "0" * 40}

    done = run_command("sample", "-p", "1", "--register", environment=settings, cwd=tmp_path)

    assert done.returncode == UNUSABLE
    assert "0 of 2 tasks got their uncertainty, and 2 got a new prediction, then it failed: " in done.stderr
    assert "Run it again for the rest" in done.stderr
    assert done.stdout == ""
