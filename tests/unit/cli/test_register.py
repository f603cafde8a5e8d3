from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Sequence
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
from yolo_backend.cli.common import FAILED, UNUSABLE

run = partial(exit_code, "register")


def write_images(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode(Image.new("RGB", (20, 10))))


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
    """A project without tasks, or with these."""

    def __init__(self, serve: StartServer, tasks: Sequence[dict[str, Any]] = ()) -> None:
        self._tasks = [{"id": number, "meta": {}, **task} for number, task in enumerate(tasks, 1)]
        self.imports: list[list[dict[str, Any]]] = []
        self._server: RecordingServer = serve(self._answer)
        self.url = self._server.url

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        content: dict[str, Any] = {"title": "Cells", "label_config": BCCD_CONFIG, "tasks": self._tasks}
        if handler.command == "POST":
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


def write_odd_files() -> None:
    """What people have in a folder of photographs."""
    Path("photos").mkdir()
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    contents = {
        "a.png": encode(Image.new("RGB", (20, 10))), "avif.png": encode(Image.new("RGB", (20, 10)), "AVIF"),
        "b.jpg": heic, "c.JPG": heic, "d.jpg": heic, "e.jpg": heic, "IMG.HEIC": heic,
        "text.png": b"see there\n", "empty.webp": b"", "scan.dcm": bytes(128) + b"DICM", "x.jxl": b"\xff\x0a",
        "y.ppm": encode(Image.new("RGB", (20, 10)), "PPM"), "tiff.png": encode(Image.new("RGB", (20, 10)), "TIFF"),
        "drawing.svg": b"<svg/>", "notes.txt": b"text", "photo.avif": encode(Image.new("RGB", (20, 10)), "AVIF"),
    }  # fmt: skip
    for name, content in contents.items():
        Path("photos", name).write_bytes(content)


LEFT_OUT = {
    "Label Studio takes no .HEIC files: make it a PNG or JPEG, or use --convert": ["photos/IMG.HEIC"],
    "is a HEIC, as iPhones make, though named .jpg: convert it to JPEG or PNG": [
        "photos/b.jpg",
        "photos/d.jpg",
        "photos/e.jpg",
    ],
    "is a HEIC, as iPhones make, though named .JPG: convert it to JPEG or PNG": ["photos/c.JPG"],
    "has no bytes: replace it": ["photos/empty.webp"],
    "Label Studio takes no .avif uploads: make it a PNG or JPEG, or use --how local-files": ["photos/photo.avif"],
    "Label Studio takes no .dcm files: make it a PNG or JPEG": ["photos/scan.dcm"],
    "is text, though named .png: open it, or the address, to see what it says": ["photos/text.png"],
    "is a TIFF, which no browser shows, though named .png: convert it to JPEG or PNG": ["photos/tiff.png"],
    "Label Studio takes no .jxl files: make it a PNG or JPEG": ["photos/x.jxl"],
    "Label Studio takes no .ppm files: make it a PNG or JPEG, or use --convert": ["photos/y.ppm"],
}


def test_files_that_are_no_images_are_told_before_and_left_out(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_odd_files()

    assert run("photos", "-p", "1", "--dry-run", "--json") == 0

    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert (told["registered"], told["no_images"]) == (3, LEFT_OUT)
    assert told["left_alone"] == {".txt": 1}
    not_registered = [
        f"Not registered, {len(files)} {'file' if len(files) == 1 else 'files'}: {', '.join(files)}: {why}"
        for why, files in LEFT_OUT.items()
    ]
    assert sorted(printed.err.splitlines()) == sorted([*not_registered, "1 file left alone: .txt"])


def test_of_many_files_the_first_are_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_images("photos/a.png", *(f"photos/{number:04}.tif" for number in range(1200)))

    assert run("photos", "-p", "1", "--dry-run") == 0
    assert capsys.readouterr().err == (
        "Not registered, 1,200 files: photos/0000.tif, photos/0001.tif, photos/0002.tif and 1,197 more: "
        "Label Studio takes no .tif files: make it a PNG or JPEG, or use --convert\n"
    )


def write_broken_files() -> dict[str, str]:
    """A whole image and four broken ones in `photos`, each with a box in `labels`. Returns why they are broken."""
    Path("photos").mkdir()
    Path("labels").mkdir()
    whole = encode(Image.effect_noise((64, 48), 50).convert("RGB"), "JPEG")
    contents = {"empty": b"", "cut": whole[: len(whole) // 2], "head": whole[:100], "text": b"see there\n"}
    for name, content in {"whole": whole, **contents}.items():
        Path("photos", f"{name}.jpg").write_bytes(content)
        Path("labels", f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2")
    Path("labels/classes.txt").write_text("RBC")
    return {
        "photos/cut.jpg": "is cut short: copy it again",
        "photos/empty.jpg": "has no bytes: replace it",
        "photos/head.jpg": "the image is broken: a JPEG of too many parts, or of none",
        "photos/text.jpg": "is text, though named .jpg: open it, or the address, to see what it says",
    }


@pytest.mark.parametrize("how", [[], ["--how", "local-files", "--document-root", "."]])
def test_a_broken_image_with_labels_costs_itself(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer, how: list[str]
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    why_broken = write_broken_files()

    assert run("photos", "-p", "1", "--labels", "labels", "--dry-run", *how) == FAILED

    printed = capsys.readouterr()
    assert printed.out.startswith("Would register 1 of 1 images in Cells")
    assert ", 1 of them with 1 box as predictions" in printed.out
    lines = printed.err.splitlines()
    last = lines[lines.index("Images left out with their labels: 4") + 1 :]
    for line, (name, why) in zip(sorted(last), why_broken.items(), strict=True):
        assert line.startswith(f"  {name}: {why}")
        assert any(line.startswith(f"Not registered, 1 file: {name}: {why}") for line in lines)
    assert "Labels without one of the images" not in printed.err

    assert run("photos", "-p", "1", "--labels", "labels", "--dry-run", "--json", *how) == FAILED
    told = json.loads(capsys.readouterr().out)
    assert (told["registered"], told["labels_without_image"], len(told["labels_not_registered"])) == (1, 0, 4)
    assert sorted(file for files in told["no_images"].values() for file in files) == list(why_broken)


def test_a_broken_image_without_labels_is_left_out_and_is_no_failure(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    for name in write_broken_files():
        Path("labels", Path(name).stem).with_suffix(".txt").unlink()

    assert run("photos", "-p", "1", "--labels", "labels", "--dry-run") == 0
    printed = capsys.readouterr()
    assert "Not registered, 1 file: photos/cut.jpg: is cut short" in printed.err
    assert "with their labels" not in printed.err


def test_labels_of_broken_images_alone_are_an_error(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_broken_files()
    Path("labels/whole.txt").unlink()

    assert run("photos", "-p", "1", "--labels", "labels") == UNUSABLE
    assert capsys.readouterr().err.splitlines()[-1] == (
        "labels: its 4 labels fit neither photos/whole.jpg nor another given image that can be registered"
    )

    Path("photos/whole.jpg").unlink()
    assert run("photos", "-p", "1", "--labels", "labels") == UNUSABLE
    assert "photos/cut.jpg: is cut short" in capsys.readouterr().err


def test_what_is_converted_is_broken_by_its_own_name(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    """A .jfif is copied as it is, so its pixels are looked at later."""
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_broken_files()
    Path("photos/cut.jpg").rename("photos/cut.jfif")

    assert run("photos", "-p", "1", "--labels", "labels", "--convert", "made", "--dry-run", "--json") == FAILED
    told = json.loads(capsys.readouterr().out)
    assert told["registered"] == 1
    assert any(sentence.startswith("photos/cut.jfif: is cut short") for sentence in told["labels_not_registered"])


def test_what_is_lost_is_told_of_new_tasks_alone(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    """Run again, it registers nothing, so no label of that time is lost once more."""
    Path("photos").mkdir()
    Path("labels").mkdir()
    for number, name in enumerate(("one", "two", "three")):
        Path("photos", f"{name}.png").write_bytes(encode(Image.new("RGB", (20 + number, 10))))
        Path("labels", f"{name}.txt").write_text("0 0.1 0.1 0.9 0.1 0.5 0.9")
    Path("labels/classes.txt").write_text("RBC")
    lost = "polygons became the boxes around them: the project has no PolygonLabels with their labels"
    there = [
        {"data": {"image": "/data/upload/1/x.png"}, "meta": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}
        for file in (Path("photos/one.png"), Path("photos/two.png"), Path("photos/three.png"))
    ]

    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve, there[:2]).url)
    assert run("photos", "-p", "1", "--labels", "labels", "--dry-run") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("Would register 1 of 3 images")
    assert f"1 {lost}" in printed.err
    assert "Images that are registered already, and so get no labels: 2" in printed.err

    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve, there).url)
    assert run("photos", "-p", "1", "--labels", "labels", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["registered"], told["changed"], told["labels_of_registered"]) == (0, {}, 3)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("0 0.5 0.5 0.2 0.2", 0),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9", 0),
        ("0 0.5 0.5 0.2 0.2\n0 1.5 1.5 0.2 0.2", FAILED),
        ("0 1.5 1.5 0.2 0.2", FAILED),
        ("0 0.5 0.5 0.2 0.2\n0 0.5", FAILED),
    ],
    ids=["all is there", "a polygon became a box", "one of two is off the image", "all are off it", "an odd line"],
)
def test_the_exit_code_says_whether_labels_are_left_out(
    environment: pytest.MonkeyPatch, serve: StartServer, lines: str, code: int
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_images("photos/a.png", "photos/b.png")
    Path("photos/b.png").write_bytes(encode(Image.new("RGB", (21, 10))))
    Path("labels").mkdir()
    Path("labels/classes.txt").write_text("RBC")
    Path("labels/a.txt").write_text(lines)
    Path("labels/b.txt").write_text("0 0.5 0.5 0.2 0.2")

    assert run("photos", "-p", "1", "--labels", "labels", "--dry-run") == code


def test_where_no_image_is_left_nothing_is_asked_of_label_studio(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos").mkdir()
    Path("photos/a.jpg").write_bytes(b"\0\0\0\x14ftypheic\0\0\0\0mif1")
    Path("photos/b.png").touch()

    assert run("photos", "-p", "1") == UNUSABLE
    assert capsys.readouterr().err == (
        "photos/a.jpg: is a HEIC, as iPhones make, though named .jpg: convert it to JPEG or PNG; "
        "photos/b.png: has no bytes: replace it\n"
    )


def test_an_avif_is_registered_where_it_lies(environment: pytest.MonkeyPatch, serve: StartServer) -> None:
    project = EmptyProject(serve)
    environment.setenv("LABEL_STUDIO_URL", project.url)
    Path("photos").mkdir()
    Path("photos/a.avif").write_bytes(encode(Image.new("RGB", (20, 10)), "AVIF"))

    assert run("photos", "-p", "1", "--how", "local-files", "--document-root", ".") == 0
    ((task,),) = project.imports
    assert task["data"]["image"] == "/data/local-files/?d=photos/a.avif"


def test_local_files_need_a_document_root(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    write_images("photos/a.jpg")

    assert run("photos", "-p", "1", "--how", "local-files") == UNUSABLE
    assert "Give --document-root" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--how", "upload"], ["--how", "local-files", "--document-root", "root"]])
def test_a_dry_run_of_convert_says_what_would_be_made(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer, how: list[str]
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    Path("root").mkdir()
    Path("a.tif").write_bytes(encode(Image.new("RGB", (20, 10)), "TIFF"))

    assert run("a.tif", "-p", "1", "--convert", "root/made", "--dry-run", *how) == 0

    printed = capsys.readouterr()
    assert printed.err == "Would make 1 image in root/made of .tif\n"
    assert printed.out.startswith("Would register 1 of 1 images")
    assert not list(Path("root").iterdir())


def test_a_dry_run_of_convert_finds_what_would_fail(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    environment.setenv("LABEL_STUDIO_URL", EmptyProject(serve).url)
    Path("root").mkdir()
    Path("a.tif").write_bytes(encode(Image.new("RGB", (20, 10)), "TIFF"))
    write_images("made/b.png")
    local_files = ["--how", "local-files", "--document-root", "root"]

    assert run("a.tif", "-p", "1", "--convert", "elsewhere", "--dry-run", *local_files) == UNUSABLE
    assert "elsewhere/a.png isn't below root, the Local Files folder" in capsys.readouterr().err

    Path("made/a.png").write_bytes(b"another")
    assert run("a.tif", "-p", "1", "--convert", "made", "--dry-run") == UNUSABLE
    assert "made/a.png is there already, and is another image: give --convert another" in capsys.readouterr().err


def test_help_has_examples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "register photos/ -p 3" in capsys.readouterr().out
