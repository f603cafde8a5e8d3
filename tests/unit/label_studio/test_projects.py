from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.fakes.filtering_label_studio import PROJECT, LabelStudio
from tests.harness.http_server import StartServer, reply
from yolo_backend.label_studio import projects as projects_module
from yolo_backend.label_studio.errors import StudioError, StudioMissingError
from yolo_backend.label_studio.projects import Project, Upload, open_project, stored_name
from yolo_backend.label_studio.studio import Studio

TOKEN = "0" * 40


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.jpg", "a.jpg"),
        ("my photo (1).JPG", "my_photo_1.JPG"),
        ("ä+ö.png", "äö.png"),
        (" a b.jpg ", "a_b.jpg"),
    ],
)
def test_the_name_that_an_upload_gets(name: str, stored: str) -> None:
    assert stored_name(name) == stored


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(("fields", "pages"), [(["data"], 3), (["data", "predictions"], 5), ([], 5)])
def test_tasks_are_read_page_by_page(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch, fields: list[str], pages: int, newest_first: bool
) -> None:
    """Pages with regions are smaller; one task is deleted, and one registered, while the first page is looked at."""
    monkeypatch.setattr(projects_module, "_PAGE_TASKS", 3)
    monkeypatch.setattr(projects_module, "_PAGE_TASKS_WITH_REGIONS", 2)
    label_studio = LabelStudio({task_id: [] for task_id in range(11, 18)})
    server = label_studio.server = serve(label_studio)
    project = Project(Studio(server.url, TOKEN), PROJECT, "Cells", "<View/>")

    tasks = project.tasks(fields=fields, newest_first=newest_first)
    read = [next(tasks)["id"]]
    label_studio.delete(read[0])
    label_studio.predictions[10 if newest_first else 18] = []
    read += [task["id"] for task in tasks]

    assert read == ([17, 16, 15, 14, 13, 12, 11, 10] if newest_first else [11, 12, 13, 14, 15, 16, 17, 18])
    assert len(server.requests) == pages


@pytest.mark.parametrize("prefix", ["", "/tools/label-studio"])
def test_uploads_are_told_in_the_order_of_the_files(serve: StartServer, prefix: str) -> None:
    """Label Studio lists them in an order of its own."""
    files = [{"id": 8, "file": "upload/3/89abcdef-ä.jpg"}, {"id": 7, "file": "upload/3/01234567-a.jpg"}]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        known = {"POST": {"file_upload_ids": [7, 8]}, "GET": files}
        reply(json.dumps(known[handler.command]).encode())(handler)

    project = Project(Studio(serve(answer).url + prefix, TOKEN), 3, "Cells", "<View/>")

    uploads = project.upload([("a.jpg", b"a"), ("ä.jpg", b"b")])

    assert uploads == [
        Upload(7, f"{prefix}/data/upload/3/01234567-a.jpg"),
        Upload(8, f"{prefix}/data/upload/3/89abcdef-%C3%A4.jpg"),
    ]


def test_uploads_are_never_deleted_without_their_ids(serve: StartServer) -> None:
    """Without, Label Studio deletes all of the project."""
    server = serve(reply(b'{"deleted": 2}'))
    project = Project(Studio(server.url, TOKEN), 3, "Cells", "<View/>")

    project.delete_uploads([])
    project.delete_uploads([7, 8])

    assert [(request.method, request.path, json.loads(request.body)) for request in server.requests] == [
        ("DELETE", "/api/projects/3/file-uploads", {"file_upload_ids": [7, 8]})
    ]


def test_an_upload_that_is_lost_is_told(serve: StartServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        known = {"POST": {"file_upload_ids": [7]}, "GET": [{"id": 7, "file": "upload/3/01234567-a.jpg"}]}
        reply(json.dumps(known[handler.command]).encode())(handler)

    project = Project(Studio(serve(answer).url, TOKEN), 3, "Cells", "<View/>")

    with pytest.raises(StudioError, match="took 1 of 2 files"):
        project.upload([("a.jpg", b"a"), ("b.jpg", b"b")])


@pytest.mark.parametrize(
    ("listing", "told"),
    [
        (
            (200, {"count": 2, "results": [{"id": 7, "title": "Cells"}, {"id": 9, "title": "Nuts\nand bolts"}]}),
            'but 7 "Cells", 9 "Nuts and bolts"',
        ),
        ((200, {"count": 312, "results": [{"id": 7, "title": "x" * 100}]}), f'but 7 "{"x" * 37}..." and 311 more'),
        ((200, {"count": 0, "results": []}), "and no other: check that the token is of the same organization"),
        ((403, {"detail": "No."}), "and no list of projects: check that the token's user may see projects"),
        ((200, ["?"]), "and no list of projects: check that the token's user may see projects"),
        ((502, None), "and no list of projects: check that the token's user may see projects"),
    ],
)
def test_a_project_that_is_not_there_is_told_with_those_that_are(
    serve: StartServer, listing: tuple[int, Any], told: str
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_listing = handler.path.startswith("/api/projects/?")
        status, body = listing if is_listing else (404, {"detail": "Not found."})
        reply(json.dumps(body).encode(), status)(handler)

    server = serve(answer)

    with pytest.raises(StudioMissingError) as raised:
        open_project(Studio(server.url, TOKEN), 3)

    assert str(raised.value) == f"Label Studio shows the token's user no project 3, {told}"
    assert "page_size=20" in server.requests[-1].path


def test_a_bare_address_has_the_name_of_the_configs_first_field(serve: StartServer) -> None:
    """As in Label Studio's own `replace_task_data_undefined_with_config_field`."""
    tasks = [{"id": 1, "data": {"$undefined$": "http://images/a.jpg", "note": "x"}}, {"id": 2, "data": {"photo": "b"}}]
    server = serve(reply(json.dumps({"tasks": tasks}).encode()))
    config = '<View><Header value="Look"/><Image name="i" value="$photo"/><Text name="t" value="$note"/></View>'

    named = list(Project(Studio(server.url, TOKEN), 3, "Cells", config).tasks())

    assert [task["data"] for task in named] == [{"photo": "http://images/a.jpg", "note": "x"}, {"photo": "b"}]


@pytest.mark.parametrize("config", ["<View/>", "<View", '<View><Image name="i" value="a.jpg"/></View>'])
def test_a_config_without_fields_leaves_data_as_they_are(serve: StartServer, config: str) -> None:
    task = {"id": 1, "data": {"$undefined$": "http://images/a.jpg"}}
    server = serve(reply(json.dumps({"tasks": [task]}).encode()))
    assert list(Project(Studio(server.url, TOKEN), 3, "Cells", config).tasks()) == [task]


@pytest.mark.parametrize(
    ("created_at", "sent"), [("2023-11-14T22:13:20.987654Z", "3.1700000000"), (None, "3")], ids=["new", "old"]
)
def test_a_project_is_known_as_label_studio_sends_it(serve: StartServer, created_at: str | None, sent: str) -> None:
    body = {"title": "Cells", "label_config": "<View/>"} | ({"created_at": created_at} if created_at else {})
    server = serve(reply(json.dumps(body).encode()))
    assert open_project(Studio(server.url, TOKEN), 3).sent_as == sent
    assert "created_at" in server.requests[0].path
