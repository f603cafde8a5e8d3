from __future__ import annotations

import io
import json
import signal
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.harness.command import exit_code
from tests.harness.http_server import RecordingServer, StartServer, reply
from tests.harness.pictures import encode
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.cli.common import INTERRUPTED, UNUSABLE

run = partial(exit_code, "register")


def write_images(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder, no file, no glob that matches, and no address"),
        (["empty"], "No image is in the folder empty"),
        (["scans"], "scans/a.tif: Label Studio takes no .tif files"),
        (
            ["photos"],
            "Label Studio doesn't answer at http://127.0.0.1:1 (connection refused): start it, or correct LABEL_",
        ),
    ],
)
def test_what_cannot_be_registered_is_told_in_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    write_images("photos/a.jpg", "scans/a.tif")

    assert run(*arguments, "-p", "1") == UNUSABLE

    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")


@pytest.mark.parametrize("version", ["project-1-at-2026-11-22-20-37-adf505af", "yolo26n-0123abcd"])
def test_a_model_version_as_the_backends_own_is_refused(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    write_images("a.jpg")

    assert run("a.jpg", "-p", "1", "--labels", "labels", "--model-version", version) == UNUSABLE

    printed = capsys.readouterr().err
    assert f"--model-version {version} would be taken for this backend's own predictions" in printed
    assert printed.count("\n") == 1


def test_standard_input_that_is_no_text_is_told(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))

    assert run("-", "-p", "1") == UNUSABLE
    assert capsys.readouterr().err == "Standard input is no list of images: it isn't text in UTF-8\n"


def test_a_file_name_that_is_no_text_is_refused_before_anything_is_sent(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images("photos/a.jpg", "photos/\udcff.jpg")

    assert run("photos", "-p", "1") == UNUSABLE
    assert capsys.readouterr().err == "photos/?.jpg: its name isn't text in UTF-8: rename it\n"


class EmptyProject:
    """A project without tasks, on a server that stops answering with the import of this number."""

    def __init__(self, serve: StartServer, interrupted_import: int | None = None) -> None:
        self.imports: list[list[dict[str, Any]]] = []
        self.is_told = threading.Event()
        self._interrupted_import = interrupted_import
        self._server: RecordingServer = serve(self._answer)
        self.url = self._server.url

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        content: dict[str, Any] = {"title": "Cells", "label_config": BCCD_CONFIG, "tasks": []}
        if handler.command == "POST":
            if len(self.imports) == self._interrupted_import:
                # To the thread that waits for us: another may get what is sent to the process, and that one goes on.
                signal.pthread_kill(int(threading.main_thread().ident or 0), signal.SIGINT)
                self.is_told.wait(10)
                return
            tasks = json.loads(self._server.requests[-1].body)
            self.imports.append(tasks)
            content = {"task_ids": list(range(len(tasks)))}
        reply(json.dumps(content).encode())(handler)


@pytest.mark.parametrize(
    ("labels", "version"),
    [
        ("labels.v2", "labels.v2 (imported)"),
        ("project-1-at-2026-11-22-20-37-adf505af", "project-1-at-2026-11-22-20-37-adf505af (imported)"),
        ("old.v2.jsonl", "old.v2 (imported)"),
    ],
)
def test_predictions_have_the_name_of_their_labels(
    environment: pytest.MonkeyPatch, serve: StartServer, labels: str, version: str
) -> None:
    project = EmptyProject(serve)
    environment.setenv("LABEL_STUDIO_URL", project.url)
    Path("a.png").write_bytes(encode(Image.new("RGB", (20, 10))))
    if labels.endswith(".jsonl"):
        Path(labels).write_text('{"image": "a.png", "boxes": []}')
    else:
        Path(labels).mkdir()
        Path(labels, "a.txt").touch()
        Path(labels, "classes.txt").write_text("RBC")

    local_files = ["--how", "local-files", "--document-root", "."]
    assert run("a.png", "-p", "1", "--labels", labels, *local_files) == 0

    ((task,),) = project.imports
    assert [prediction["model_version"] for prediction in task["predictions"]] == [version]


def test_ctrl_c_tells_how_many_are_registered(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    project = EmptyProject(serve, interrupted_import=1)
    environment.setenv("LABEL_STUDIO_URL", project.url)
    Path("all.txt").write_text("\n".join(f"s3://bucket/{number}.jpg" for number in range(1100)))

    assert run("all.txt", "-p", "1", "--json") == INTERRUPTED

    project.is_told.set()
    printed = capsys.readouterr()
    told = "Interrupted: 500 of 1,100 were registered, perhaps some more. Run it again, and it goes on there\n"
    assert (printed.err, printed.out) == (told, "")


def test_local_files_need_a_document_root(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_images("photos/a.jpg")

    assert run("photos", "-p", "1", "--how", "local-files") == UNUSABLE
    assert "Give --document-root" in capsys.readouterr().err


def test_help_has_examples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "register photos/ -p 3" in capsys.readouterr().out
