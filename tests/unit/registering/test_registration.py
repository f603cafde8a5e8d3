from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.harness.http_server import Answer, RecordingServer, StartServer, reply
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import surely_stored_after_s
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.control import Control
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.protocol import Prediction
from yolo_backend.registering import registration as registration_module
from yolo_backend.registering.already_there import IS_REPEATED, IS_THERE, NAME_IS_THERE
from yolo_backend.registering.items import Item, RegisterError, by_local_files, check_files
from yolo_backend.registering.registration import register
from yolo_backend.registering.target import choose_control

DYNAMIC = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" value="$labels"/></View>"""
(CONTROL,) = parse_labeling_config(BCCD_CONFIG).controls
(LIST_CONTROL,) = parse_labeling_config(BCCD_CONFIG.replace('value="$image"', 'valueList="$image"')).controls
TWO_CONTROLS = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="cells" toName="image"><Label value="RBC"/></RectangleLabels>
  <RectangleLabels name="stains" toName="image"><Label value="Dust"/></RectangleLabels>
</View>
"""
TWO_IMAGES = """
<View>
  <Image name="left" value="$left"/><Image name="right" value="$right"/>
  <RectangleLabels name="on_left" toName="left"><Label value="RBC"/></RectangleLabels>
  <RectangleLabels name="on_right" toName="right"><Label value="RBC"/></RectangleLabels>
</View>
"""


DIGEST = hashlib.sha256(b"image").hexdigest()
DELETED = reply(b'{"deleted": 1}')
REJECTED = reply(json.dumps(["Error at item 0: no image :: {'data': {'image': 'a long story'}}"]).encode(), 400)


class FailingStudio:
    """What a real Label Studio can't be made to do: its project holds these data, and imports fail as told."""

    def __init__(
        self,
        serve: StartServer,
        held: Sequence[dict[str, Any]] = (),
        failing: dict[int, Answer] | None = None,
        deletion: Answer = DELETED,
    ):
        self.imports: list[list[dict[str, Any]]] = []
        self.uploads: list[int] = []
        self.deleted: list[dict[str, Any]] = []
        self._held = [
            {
                "id": number,
                "data": {key: value for key, value in data.items() if key != "meta"},
                "meta": data.get("meta"),
            }
            for number, data in enumerate(held, 1)
        ]
        self._failing = failing or {}
        self._deletion = deletion
        self._server: RecordingServer = serve(self._answer)
        self.project = Project(Studio(self._server.url, "0" * 40), 1, "Cells", BCCD_CONFIG)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = self._server.requests[-1].body
        if handler.command == "DELETE":
            self.deleted.append(json.loads(body))
            answer = self._deletion
        elif "/file-uploads" in handler.path:
            files = [{"id": number, "file": f"upload/1/0123abcd-{number}.jpg"} for number in range(sum(self.uploads))]
            answer = reply(json.dumps(files).encode())
        elif handler.command == "GET":
            answer = reply(json.dumps({"tasks": self._held, "total": len(self._held)}).encode())
        elif "commit_to_project=false" in handler.path:
            before, count = sum(self.uploads), body.count(b"filename=")
            self.uploads.append(count)
            answer = reply(json.dumps({"file_upload_ids": list(range(before, before + count))}).encode(), 201)
        elif len(self.imports) in self._failing:
            answer = self._failing[len(self.imports)]
        else:
            self.imports.append(json.loads(body))
            ids = [100 * len(self.imports) + number for number in range(len(self.imports[-1]))]
            answer = reply(json.dumps({"task_ids": ids}).encode(), 201)
        answer(handler)


def run(
    studio: FailingStudio, items: Sequence[Item], control: Control = CONTROL, **options: Any
) -> dict[str, list[Any]]:
    """Register, and gather what became of the items."""
    parts = list(register(studio.project, items, control, **options))
    return {
        "registered": [item for part in parts for item in part.items],
        "task_ids": [task_id for part in parts for task_id in part.task_ids],
        "left_out": [(item, part.because) for part in parts for item in part.left_out],
    }


def addresses(count: int) -> list[Item]:
    return [Item(f"s3://bucket/{number}.jpg") for number in range(count)]


def image(folder: Path, name: str, content: bytes = b"image") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_addresses_go_in_chunks_as_they_are(serve: StartServer) -> None:
    studio = FailingStudio(serve)

    done = run(studio, addresses(1100))

    assert [len(tasks) for tasks in studio.imports] == [500, 500, 100]
    assert studio.imports[2][99] == {"data": {"image": "s3://bucket/1099.jpg"}}
    assert (len(done["registered"]), done["task_ids"][0], done["task_ids"][-1]) == (1100, 100, 399)
    assert studio.uploads == []


def test_files_are_uploaded_with_their_digest(serve: StartServer, tmp_path: Path) -> None:
    studio = FailingStudio(serve)
    file = image(tmp_path, "a.jpg")
    prediction: Prediction = {"result": [], "model_version": "old"}

    run(studio, [Item(file, {"uncertainty": 0.5}, [prediction]), Item("s3://b/c.jpg", annotations=[{"result": []}])])

    assert studio.imports == [
        [
            {
                "data": {
                    "image": "/data/upload/1/0123abcd-0.jpg",
                    "uncertainty": 0.5,
                    "file": "a.jpg",
                },
                "meta": {"sha256": hashlib.sha256(b"image").hexdigest()},
                "predictions": [prediction],
            },
            {"data": {"image": "s3://b/c.jpg"}, "annotations": [{"result": []}]},
        ]
    ]


def test_uploads_go_in_chunks_of_a_hundred_files(serve: StartServer, tmp_path: Path) -> None:
    studio = FailingStudio(serve)

    run(studio, [Item(image(tmp_path, f"{number}.jpg", b"%d" % number)) for number in range(230)])

    assert studio.uploads == [100, 100, 30]
    assert [len(tasks) for tasks in studio.imports] == [100, 100, 30]


@pytest.mark.long
def test_uploads_go_in_chunks_of_50_mb(serve: StartServer, tmp_path: Path) -> None:
    studio = FailingStudio(serve)
    sizes_bytes = [30_000_000, 20_000_000, 60_000_000, 1]

    run(studio, [Item(image(tmp_path, f"{n}.jpg", bytes(size))) for n, size in enumerate(sizes_bytes)])

    assert studio.uploads == [2, 1, 1]


@pytest.mark.long
def test_images_in_their_addresses_go_in_chunks_of_16_mb(serve: StartServer) -> None:
    studio = FailingStudio(serve)
    sizes_bytes = [9_000_000, 6_000_000, 9_500_000, 20_000_000, 1]

    run(studio, [Item(f"data:image/png;base64,{'A' * size}") for size in sizes_bytes])

    assert [len(tasks) for tasks in studio.imports] == [2, 1, 1, 1]


@pytest.mark.parametrize("becoming", ["predictions", "annotations"])
@pytest.mark.parametrize("is_file", [True, False])
def test_large_labels_go_in_imports_of_bounded_size(
    serve: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becoming: str, is_file: bool
) -> None:
    """500 tasks with 20 masks of 20 kB would be one request of 200 MB, the most that Label Studio takes."""
    most_bytes = 300_000
    monkeypatch.setattr(registration_module, "MAX_IMPORT_BYTES", most_bytes)
    studio = FailingStudio(serve)
    rle = [number % 256 for number in range(20_000)]
    labels: Any = [{"result": [{"type": "brushlabels", "value": {"rle": rle, "brushlabels": ["RBC"]}}]}]
    images: list[Any] = [
        image(tmp_path, f"{number}.jpg", b"%d" % number) if is_file else f"s3://bucket/{number}.jpg"
        for number in range(7)
    ]

    done = run(studio, [Item(each, **{becoming: labels}) for each in images])

    assert [len(tasks) for tasks in studio.imports] == [3, 3, 1]
    assert max(len(json.dumps(tasks)) for tasks in studio.imports) <= most_bytes
    assert len(done["task_ids"]) == 7


@pytest.mark.parametrize("deletion", [DELETED, reply(b"", 502)], ids=["deleted", "not to be deleted"])
def test_files_of_rejected_tasks_are_deleted_again(serve: StartServer, tmp_path: Path, deletion: Answer) -> None:
    studio = FailingStudio(serve, failing={1: REJECTED}, deletion=deletion)
    files = [Item(image(tmp_path, f"{number}.jpg", b"%d" % number)) for number in range(102)]

    with pytest.raises(
        RegisterError, match=r"^100 of 102 were registered, then it failed: Label Studio answers 400 .* no image"
    ):
        run(studio, files)

    assert studio.deleted == [{"file_upload_ids": [100, 101]}]


@pytest.mark.parametrize(("failing", "is_file"), [("rejected", False), ("unknown", True)])
def test_what_is_no_rejected_tasks_file_is_not_deleted(
    serve: StartServer, tmp_path: Path, failing: str, is_file: bool
) -> None:
    studio = FailingStudio(serve, failing={0: REJECTED if failing == "rejected" else reply(b"", 502)})

    with pytest.raises(RegisterError):
        run(studio, [Item(image(tmp_path, "a.jpg"))] if is_file else addresses(1))

    assert studio.deleted == []


@pytest.mark.parametrize(
    ("held", "because"),
    [
        ({"image": "/data/upload/1/0123abcd-x.jpg", "sha256": hashlib.sha256(b"image").hexdigest()}, IS_THERE),
        ({"image": "/data/upload/1/0123abcd-x.jpg", "meta": {"sha256": DIGEST}}, IS_THERE),
        ({"image": "/data/upload/1/0123abcd-my_photo.jpg"}, NAME_IS_THERE),
        ({"image": "/data/upload/1/0123abcd-my_photo.jpg", "meta": {"sha256": "that of another image"}}, None),
        ({"image": "/data/upload/1/0123abcd-my_photo.jpg", "sha256": "that of another image"}, None),
        ({"image": "/data/upload/1/0123abcd-other.jpg"}, None),
        ({"image": "https://example.com/my_photo.jpg"}, None),
        ({"image": None}, None),
        ({}, None),
    ],
)
def test_which_files_are_left_out(
    serve: StartServer, tmp_path: Path, held: dict[str, Any], because: str | None
) -> None:
    item = Item(image(tmp_path, "my photo.jpg"))

    done = run(FailingStudio(serve, [held]), [item])

    assert done["left_out"] == ([(item, because)] if because else [])
    assert done["registered"] == ([] if because else [item])


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("s3://bucket/a.jpg", {"image": "s3://bucket/a.jpg"}),
        ("s3://bucket/a.jpg", {"image": ["s3://bucket/b.jpg", "s3://bucket/a.jpg"]}),
        ("/data/local-files/?d=a%20b.jpg", {"image": "http://localhost:8080/data/local-files/?d=a%20b.jpg"}),
        ("/data/local-files/?d=a b.jpg", {"image": "/data/local-files/?d=a%20b.jpg"}),
    ],
)
def test_addresses_that_are_there_are_left_out(serve: StartServer, address: str, held: dict[str, Any]) -> None:
    studio = FailingStudio(serve, [held])

    done = run(studio, [Item(address), Item("s3://bucket/new.jpg")])

    assert done["left_out"] == [(Item(address), IS_THERE)]
    assert studio.imports == [[{"data": {"image": "s3://bucket/new.jpg"}}]]


def test_what_is_given_twice_is_registered_once(serve: StartServer, tmp_path: Path) -> None:
    one, copy = image(tmp_path, "a.jpg"), image(tmp_path, "b.jpg")

    done = run(FailingStudio(serve), [Item(one), Item(copy), Item("s3://b/c.jpg"), Item("s3://b/c.jpg")])

    assert [item.image for item in done["registered"]] == [one, "s3://b/c.jpg"]
    assert done["left_out"] == [(Item(copy), IS_REPEATED), (Item("s3://b/c.jpg"), IS_REPEATED)]


def test_a_list_of_images_gets_one(serve: StartServer) -> None:
    studio = FailingStudio(serve)

    run(studio, addresses(1), LIST_CONTROL)

    assert studio.imports == [[{"data": {"image": ["s3://bucket/0.jpg"]}}]]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("$image.url", {"image": {"url": "s3://bucket/0.jpg"}}),
        ("$images[0]", {"images": ["s3://bucket/0.jpg"]}),
        ("$pages[0].image", {"pages": [{"image": "s3://bucket/0.jpg"}]}),
    ],
)
def test_a_task_has_its_image_where_the_config_says(serve: StartServer, value: str, data: dict[str, Any]) -> None:
    (control,) = parse_labeling_config(BCCD_CONFIG.replace("$image", value)).controls
    studio = FailingStudio(serve)
    run(studio, addresses(1), control)
    assert studio.imports == [[{"data": data}]]

    there = FailingStudio(serve, [data])
    assert run(there, addresses(1), control)["left_out"]
    assert there.imports == []


@pytest.mark.parametrize("value", ["$images[1]", "https://host/$file"])
def test_where_the_config_leaves_no_place_nothing_is_sent(serve: StartServer, value: str, tmp_path: Path) -> None:
    (control,) = parse_labeling_config(BCCD_CONFIG.replace("$image", value)).controls
    studio = FailingStudio(serve)
    with pytest.raises(LabelingConfigError, match=re.escape(f'registered for value="{value}"')):
        run(studio, [Item(image(tmp_path, "a.jpg"))], control)
    assert (studio.imports, studio.uploads) == ([], [])


def test_a_dry_run_sends_nothing(serve: StartServer, tmp_path: Path) -> None:
    studio = FailingStudio(serve, [{"image": "s3://bucket/0.jpg"}])

    done = run(studio, [*addresses(3), Item(image(tmp_path, "a.jpg"))], dry_run=True)

    assert (studio.imports, studio.uploads, done["task_ids"]) == ([], [], [])
    assert (len(done["registered"]), len(done["left_out"])) == (3, 1)


@pytest.mark.parametrize(
    ("failing", "message", "registered"),
    [
        (
            {0: REJECTED},
            "Nothing is registered: Label Studio answers 400 at /api/projects/1/import: Error at item 0: no image",
            0,
        ),
        (
            {2: REJECTED},
            "1,000 of 1,100 were registered, then it failed: Label Studio answers 400 at /api/projects/1/import: "
            "Error at item 0: no image. Run it again for the rest",
            1000,
        ),
        ({0: reply(b"", 502)}, "At least 0 of 1,100 were registered, then it failed: ", 0),
        (
            {1: reply(b"", 504)},
            "At least 500 of 1,100 were registered, then it failed: http://127.0.0.1:PORT answers 504: Label "
            "Studio takes longer than the proxy before it waits: see its log, or raise the proxy's time-out. Run it "
            "again after two minutes for the rest; if you run it sooner, some may be registered twice",
            500,
        ),
        ({1: reply(b"", 502)}, "At least 500 of 1,100 were registered, then it failed: ", 500),
        (
            {1: reply(b'{"detail": "You do not have permission"}', 403)},
            "500 of 1,100 were registered, then it failed: Label Studio doesn't let the token's user do that (403 at "
            "/api/projects/1/import: You do not have permission): give that user the right, or use another user's "
            "token. Run it again",
            500,
        ),
    ],
)
def test_how_many_are_registered_is_told(
    serve: StartServer, failing: dict[int, Answer], message: str, registered: int
) -> None:
    studio = FailingStudio(serve, failing=failing)

    with pytest.raises(RegisterError) as caught:
        run(studio, addresses(1100))

    assert str(caught.value).startswith(message.replace("http://127.0.0.1:PORT", studio.project.studio.url))
    is_unknown = message.startswith("At least")
    assert caught.value.again == ("Run it again after two minutes" if is_unknown else "Run it again")
    assert "a long story" not in str(caught.value)
    assert sum(map(len, studio.imports)) == registered


def test_in_two_minutes_label_studio_holds_what_it_will() -> None:
    assert surely_stored_after_s(registration_module._CHUNK_TASKS) <= 120


@pytest.mark.parametrize("way", ["POST", "GET", "commit"])
def test_what_ends_before_the_import_of_tasks_leaves_nothing_unknown(
    serve: StartServer, tmp_path: Path, way: str
) -> None:
    """In an upload, in the question for its files' names, or between the two and the import of the tasks."""
    studio = FailingStudio(serve)
    answer = studio._server.answer

    def failing(handler: BaseHTTPRequestHandler) -> None:
        fails = {"POST": "commit_to_project" in handler.path, "GET": "/file-uploads" in handler.path, "commit": False}
        if way == "commit" and "/file-uploads" in handler.path:
            studio.project.studio.endpoint.url = "http://127.0.0.1:1"
        (reply(b"", 502) if fails[way] else answer)(handler)

    studio._server.answer = failing
    with pytest.raises(RegisterError, match=r"^Nothing is registered: ") as caught:
        run(studio, [Item(image(tmp_path, "a.jpg"))])
    assert caught.value.again == "Run it again"
    assert studio.imports == []


def test_where_label_studio_does_not_tell_what_is_there_nothing_is_sent(serve: StartServer) -> None:
    server = serve(reply(b"", 502))

    with pytest.raises(StudioError, match="502"):
        list(register(Project(Studio(server.url, "0" * 40), 1, "Cells", BCCD_CONFIG), addresses(1), CONTROL))

    assert [request.method for request in server.requests] == ["GET"]


def test_a_file_that_is_gone_is_told_with_what_is_registered(serve: StartServer, tmp_path: Path) -> None:
    files = [image(tmp_path, f"{number}.jpg", b"%d" % number) for number in range(150)]
    parts = register(FailingStudio(serve).project, [Item(file) for file in files], CONTROL)

    assert len(next(parts).items) == 100
    files[120].unlink()
    with pytest.raises(
        RegisterError, match=r"^100 of 150 were registered, then it failed: .*120\.jpg can't be read: No such file"
    ):
        list(parts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.tif", b"II*\0", r"scan\.tif: Label Studio takes no \.tif files: make it a PNG or JPEG"),
        ("image", b"x", "image: Label Studio takes no such files"),
        ("empty.jpg", b"", r"empty\.jpg has 0 bytes"),
        ("gone.jpg", None, r"gone\.jpg can't be read: No such file"),
        ("\udcff.jpg", b"x", r"\?\.jpg: its name isn't text in UTF-8: rename it"),
    ],
)
def test_a_file_that_label_studio_does_not_take_is_told(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(RegisterError, match=message):
        check_files(["s3://bucket/a.tif", tmp_path / name])


def test_a_file_that_is_too_large_is_told(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(200_000_001)

    with pytest.raises(RegisterError, match="has 200,000,001 bytes: Label Studio takes 1 to 200,000,000"):
        check_files([tmp_path / "large.png"])


def test_files_become_paths_of_local_files(tmp_path: Path) -> None:
    data = {"uncertainty": 0.5}
    file = tmp_path / "root" / "day 1" / "ä.jpg"

    items = by_local_files([Item(file, data), Item("s3://bucket/a.jpg")], tmp_path / "root")

    assert items == [Item("/data/local-files/?d=day%201/%C3%A4.jpg", data), Item("s3://bucket/a.jpg")]


def test_a_file_outside_of_local_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(RegisterError, match=r"b\.jpg isn't below .*root, the Local Files folder: move the file there"):
        by_local_files([Item(tmp_path / "root" / ".." / "b.jpg")], tmp_path / "root")


@pytest.mark.parametrize(
    ("label_config", "name", "for_labels", "chosen"),
    [
        (BCCD_CONFIG, None, True, "label"),
        (BCCD_CONFIG, "label", False, "label"),
        (TWO_CONTROLS, None, False, "cells"),
        (TWO_CONTROLS, "stains", True, "stains"),
        (TWO_IMAGES, "on_right", False, "on_right"),
    ],
)
def test_which_control_it_is(label_config: str, name: str | None, for_labels: bool, chosen: str) -> None:
    assert choose_control(label_config, name, for_labels=for_labels).from_name == chosen


@pytest.mark.parametrize(
    ("label_config", "name", "for_labels", "message"),
    [
        (TWO_CONTROLS, None, True, "several controls: give --control, one of cells, stains"),
        (TWO_IMAGES, None, False, "several controls: give --control, one of on_left, on_right"),
        (BCCD_CONFIG, "boxes", True, 'no control "boxes" that is served, but label'),
        ("<View/>", None, False, "has no control on an Image that can be served, such as RectangleLabels"),
        (
            DYNAMIC,
            None,
            True,
            r'"label" has the labels that come with each task \(\$labels\), which a task made here',
        ),
        (DYNAMIC, "label", False, "import tasks that have them"),
    ],
)
def test_a_control_that_has_to_be_chosen(label_config: str, name: str | None, for_labels: bool, message: str) -> None:
    with pytest.raises(LabelingConfigError, match=message):
        choose_control(label_config, name, for_labels=for_labels)
