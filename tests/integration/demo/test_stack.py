"""The demo's Label Studio keeps its key between its starts; a program that tells its environment stands in for it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.harness.stack import pick_port
from yolo_backend.demo.stack import label_studio_server

TELLING = """
import http.server, json, os, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

pathlib.Path("told.json").write_text(json.dumps(dict(os.environ)))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def told(folder: Path, *, is_new: bool, **environment: str) -> dict[str, str]:
    """The environment that Label Studio is started with."""
    (folder.parent / "telling.py").write_text(TELLING)
    program = (sys.executable, folder.parent / "telling.py")
    with label_studio_server(folder, pick_port(0), environment=environment, is_new=is_new, program=program):
        return dict(json.loads((folder / "told.json").read_text()))


def test_the_key_is_kept_and_is_no_reference(tmp_path: Path) -> None:
    """Label Studio reads a key that begins with "$" as the name of another variable, and has none at its next start."""
    folder = tmp_path / "label-studio"
    key = told(folder, is_new=True)["SECRET_KEY"]
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert told(folder, is_new=False)["SECRET_KEY"] == key
    kept_in = [file for file in folder.iterdir() if file.name != "told.json" and key in file.read_text()]
    assert [oct(file.stat().st_mode & 0o777) for file in kept_in] == ["0o600"]
    assert told(folder, is_new=True)["SECRET_KEY"] != key


def test_one_that_was_started_before_there_was_a_kept_key_goes_on_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    folder = tmp_path / "label-studio"
    told(folder, is_new=True)
    login = json.loads((folder / "login.json").read_text())
    del login["secret_key"]
    (folder / "login.json").write_text(json.dumps(login))
    assert "SECRET_KEY" not in told(folder, is_new=False)


def test_a_key_that_is_asked_for_goes_first(tmp_path: Path) -> None:
    assert told(tmp_path / "label-studio", is_new=True, SECRET_KEY="asked")["SECRET_KEY"] == "asked"
