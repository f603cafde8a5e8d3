from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer, reply
from yolo_backend.cli.app import main
from yolo_backend.cli.common import UNUSABLE


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `register` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["yolo_backend", "register", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code))


@pytest.fixture
def environment(clean_environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An empty current folder, and a Label Studio that isn't there."""
    clean_environment.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    clean_environment.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    return clean_environment


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
        (["photos"], "Label Studio doesn't answer at http://127.0.0.1:1 (connection refused): check LABEL_STUDIO_URL"),
    ],
)
def test_what_cannot_be_registered_is_told_in_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    write_images("photos/a.jpg", "scans/a.tif")

    assert run(environment, *arguments, "-p", "1") == UNUSABLE

    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_local_files_need_a_document_root(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    project = b'{"title": "Cells", "label_config": "<View><Image name=\'i\' value=\'$image\'/>'
    project += b"<RectangleLabels name='l' toName='i'><Label value='RBC'/></RectangleLabels></View>\"}"
    environment.setenv("LABEL_STUDIO_URL", serve(reply(project)).url)
    write_images("photos/a.jpg")

    assert run(environment, "photos", "-p", "1", "--how", "local-files") == UNUSABLE
    assert "Give --document-root" in capsys.readouterr().err


def test_help_has_examples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    assert "register photos/ -p 3" in capsys.readouterr().out
