"""Which project a person means."""

from __future__ import annotations

import json
import re
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.harness.http_server import StartServer, reply
from yolo_backend.cli import common
from yolo_backend.cli.common import (
    CommandError,
    find_project,
    make_folder,
    out,
    print_json,
    progress_bar,
    standard_output_for_scripts,
)
from yolo_backend.label_studio.errors import StudioMissingError
from yolo_backend.label_studio.studio import Studio

TITLES = {3: "Cells", 12: "12/2025 batch", 20: "Twins", 21: "Twins"}


@pytest.fixture
def studio(serve: StartServer) -> Studio:
    """A Label Studio with these projects."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path == "/api/projects/":
            body: dict[str, Any] = {"results": [{"id": number, "title": title} for number, title in TITLES.items()]}
        else:
            number = int(path.split("/")[3])
            if number == 99:
                reply(b'{"detail": "Not found."}', 404)(handler)
                return
            body = {"id": number, "title": TITLES.get(number, "another"), "label_config": "<View/>"}
        reply(json.dumps(body).encode())(handler)

    return Studio(serve(answer).url, "0" * 40)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("3", 3),
        (" 3 ", 3),
        ("Cells", 3),
        ("12/2025 batch", 12),  # and not project 12 of that number by chance
        ("http://localhost:8080/projects/3", 3),
        ("http://localhost:8080/projects/3/data?tab=7", 3),
        ("https://tools/label-studio/projects/3?tab=7", 3),
    ],
)
def test_a_project_by_its_number_page_or_title(studio: Studio, name: str, number: int) -> None:
    assert find_project(studio, name).id == number


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("3/4 view", 'No project is called "3/4 view" for this token, but 3 "Cells", 12 "12/2025 batch", 20 "Twins"'),
        ("cells", 'No project is called "cells" for this token, but 3 "Cells", 12 "12/2025 batch", 20 "Twins", 21'),
        ("", 'No project is called ""'),
        ("Twins", r'Several projects are called "Twins" \(20, 21\): give the number'),
    ],
)
def test_no_such_project_or_several(studio: Studio, name: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        find_project(studio, name)


@pytest.mark.parametrize("name", ["99", "http://localhost:8080/projects/99/data?tab=7"])
def test_a_number_that_no_project_has_is_told_with_the_projects(studio: Studio, name: str) -> None:
    with pytest.raises(StudioMissingError) as raised:
        find_project(studio, name)
    assert str(raised.value) == (
        'Label Studio shows the token\'s user no project 99, but 3 "Cells", 12 "12/2025 batch", 20 "Twins", 21 "Twins"'
    )


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"can't be made: Not a directory: name another --out$"):
        make_folder(tmp_path / "file" / "folder", "--out")
    with pytest.raises(CommandError, match=r"^/proc can't be written to: .*: name another --out$"):
        make_folder(Path("/proc"), "--out")
    make_folder(tmp_path / "new", "--out")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_others_print_does_not_reach_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray prints of its nodes on standard output, from threads of its own; after the work, all is as it was."""
    with standard_output_for_scripts():
        print("(raylet) a node has died")
        print_json({"predicted": 2})
        out.print("2 of 2")
    print_json([])
    print("the end")
    told = capsys.readouterr()
    assert told.out == '{\n  "predicted": 2\n}\n2 of 2\n[]\nthe end\n'
    assert told.err == "(raylet) a node has died\n"


def test_without_a_terminal_progress_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that stays empty for an hour looks like a command that hangs."""
    monkeypatch.setattr(common, "_LINE_EACH_S", 0.2)
    with progress_bar() as progress:
        for number in progress.track(range(2000), description="Predicting"):
            time.sleep(0.25 if number in {900, 1500} else 0)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(re.fullmatch(r"Predicting: [\d,]+ of 2,000", line) for line in lines)
