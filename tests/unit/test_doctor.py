"""The doctor's parts that need no Label Studio, and answers that the real one gives to few; tests/e2e has the rest."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.weights import fake_catalog
from tests.harness.http_server import Answer, StartServer, redirect, reply
from tests.harness.pictures import encode
from yolo_backend.detection.weights import WeightsError
from yolo_backend.doctor.examination import examine
from yolo_backend.doctor.findings import Finding, LinkState, NotTriedError, Observation
from yolo_backend.doctor.installation import Installation
from yolo_backend.doctor.project_links import (
    images,
    labels,
    one_of_each_kind,
    prediction,
    storage_kind,
    uploads,
    weights,
)
from yolo_backend.images import uploads as uploads_module
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import QUICK_IMPORTS
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings, load_settings

LEGACY_TOKEN = "0123456789abcdef" * 2 + "01234567"
VERSION = {"release": "1.23.2"}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("/data/upload/3/0a1b-x.jpg", "upload"),
        ("/studio/data/upload/3/0a1b-x.jpg", "upload"),
        ("/storage-data/uploaded/?filepath=upload/3/x.jpg", "upload"),
        ("/data/local-files/?d=folder/x.jpg", "Local Files"),
        ("s3://bucket/x.jpg", "s3"),
        ("gs://bucket/x.jpg", "gs"),
        ("azure-blob://container/x.jpg", "azure-blob"),
        (" https://host/data/upload/x.jpg", "http"),
        ("HTTP://host/x.jpg", "http"),
        ("data:image/png;base64,AAAA", "data"),
        ("x.jpg", "other"),
        ("", "other"),
        (None, "no image"),
        ({"url": "http://host/x.jpg"}, "no image"),
    ],
)
def test_a_tasks_value_tells_how_its_image_is_stored(value: Any, kind: str) -> None:
    assert storage_kind(value) == kind


@pytest.fixture(autouse=True)
def _without_weights(clean_environment: pytest.MonkeyPatch) -> None:
    """Loading real ones takes seconds, and isn't what these tests are about."""
    clean_environment.setenv("MODEL_NAME", "absent")


def examined(url: str, token: str = LEGACY_TOKEN, **options: Any) -> dict[str, Finding]:
    settings: Settings = load_settings(label_studio_url=url, label_studio_api_key=token)
    return {finding.check: finding for finding in examine(settings, Studio(url, token), **options)}


def label_studio(**answers: Answer) -> Answer:
    """Label Studio by the last part of a path, as far as a test needs it."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        name = request.path.partition("?")[0].rstrip("/").rpartition("/")[2]
        known = {"version": reply(json.dumps(VERSION).encode()), **answers}
        known.get(name, reply(b'{"detail": "Not found."}', 404))(request)

    return answer


@pytest.mark.parametrize(
    ("answer", "told", "fix"),
    [
        (
            reply(b"<html>Welcome</html>"),
            "{url} answers with a web page, and not as",
            "Set LABEL_STUDIO_URL to the addr",
        ),
        (reply(b"", 404), "{url} isn't Label Studio's address (404)", "Set LABEL_STUDIO_URL to the address of"),
        (
            reply(b'{"detail": "log in"}', 401),
            "what answers at {url} isn't Label Studio",
            "Set LABEL_STUDIO_URL to the",
        ),
        (reply(b'{"detail": "Not Found"}', 404), "what answers at {url} isn't Label Studio", "Set LABEL_STUDIO_URL to"),
        (reply(b"Bad Gateway", 502), "{url} answers 502", "The proxy there can't reach Label Studio: see that it runs"),
        (
            redirect("https://sso.example/login"),
            "A proxy in front of Label Studio asks for a login (it leads to sso.example)",
            "Let the backend through, or set LABEL_STUDIO_URL to an address that goes around it.",
        ),
        (
            reply(b"", Content_Length="100"),
            "Label Studio doesn't answer at {url} (the connection broke off)",
            "See its log, and that LABEL_STUDIO_URL is its address",
        ),
    ],
)
def test_something_else_at_the_address_is_told_apart(serve: StartServer, answer: Answer, told: str, fix: str) -> None:
    server = serve(answer)

    findings = examined(server.url)

    assert findings["Label Studio"].state is LinkState.WRONG
    assert findings["Label Studio"].detail.startswith(told.format(url=server.url))
    assert str(findings["Label Studio"].fix).startswith(fix)
    assert {check for check, finding in findings.items() if finding.state is not LinkState.NOT_TRIED} == {
        "Label Studio",
        "weights",
    }
    assert all("authorization" not in request.headers for request in server.requests), "it is nobody's to know"


def test_whether_uploads_can_be_read_from_the_disk_is_told(serve: StartServer, tmp_path: Path) -> None:
    server = serve(reply(b"", 404))
    assert "uploads" not in examined(server.url)
    settings = load_settings(label_studio_url=server.url, label_studio_media_root=tmp_path)

    def found() -> Finding:
        findings = examine(settings, Studio(server.url, None))
        return next(finding for finding in findings if finding.check == "uploads")

    assert found() == Finding(
        "uploads",
        LinkState.OK,
        f"LABEL_STUDIO_MEDIA_ROOT ({tmp_path}) holds no upload/; meanwhile they are fetched from Label Studio: do "
        "nothing if Label Studio has no upload yet, else name the folder that holds upload/, in Label Studio's data "
        "folder it is media/",
    )
    (tmp_path / "upload").write_bytes(b"")
    assert found() == Finding(
        "uploads",
        LinkState.REMARK,
        f"LABEL_STUDIO_MEDIA_ROOT ({tmp_path}) can't be read (Not a directory); meanwhile they are fetched from Label "
        "Studio",
        "Name the folder that holds upload/, in Label Studio's data folder it is media/.",
    )
    (tmp_path / "upload").unlink()
    (tmp_path / "upload").mkdir()
    assert found() == Finding("uploads", LinkState.OK, f"they are read from {tmp_path}")


def test_an_upload_that_is_not_in_the_folder_of_uploads_is_told(serve: StartServer, tmp_path: Path) -> None:
    labels = '<RectangleLabels name="l" toName="i"><Label value="car"/></RectangleLabels>'
    config = f'<View><Image name="i" valueList="$i"/>{labels}</View>'
    pages = ["/data/upload/7/0123abcd-a.png", "/data/upload/7/0123abcd-b.png"]
    image = encode(np.ones((4, 4, 3), np.uint8))
    tasks = reply(json.dumps({"tasks": [{"id": 1, "data": {"i": pages}}]}).encode())
    server = serve(lambda request: (reply(image) if request.path in pages else tasks)(request))
    settings = load_settings(
        label_studio_url=server.url, label_studio_api_key=LEGACY_TOKEN, label_studio_media_root=tmp_path
    )
    engine = FakeEngine(info_of("absent"))
    engine.gate.set()
    studio = Studio(server.url, LEGACY_TOKEN)
    (tmp_path / "upload" / "7").mkdir(parents=True)

    def found() -> list[Observation]:
        with closing(Predictor(settings, fake_catalog(lambda _: engine))) as predictor:
            project = Project(studio, 7, "Cells", config)
            return list(images(Installation(settings, studio, predictor, lambda _: project, None)))

    seen, not_read = found()
    assert seen == Observation("upload: task 1 is fetched and decoded, 2 boxes")
    assert not_read == Observation(
        f"upload: task 1: its file isn't read from {tmp_path} (No such file or directory), but fetched from Label "
        "Studio",
        LinkState.REMARK,
        "Let LABEL_STUDIO_MEDIA_ROOT be the media/ of this Label Studio, and let the backend's user read the files in "
        "it. Symbolic links in it aren't followed.",
    )
    for page in pages:
        (tmp_path / page.removeprefix("/data/")).write_bytes(image)
    assert found() == [seen]
    assert [request.path for request in server.requests if request.path in pages] == pages


def test_a_folder_of_uploads_that_hangs_is_told_and_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on a network does whose server is away."""
    monkeypatch.setattr(uploads_module, "_LOOK_TIMEOUT_S", 0.1)
    settings = load_settings(label_studio_url="http://studio.invalid", label_studio_media_root=tmp_path)
    comes_back, looks, real_scandir = threading.Event(), [], os.scandir

    def scandir(path: Any) -> Any:
        if path == tmp_path:
            looks.append(path)
            comes_back.wait(5)
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with closing(Predictor(settings, fake_catalog(lambda _: FakeEngine(info_of("absent"))))) as predictor:
        it = Installation(settings, Studio(settings.label_studio_url or "", None), predictor, None, None)
        told = [*uploads(it), *uploads(it)]
    comes_back.set()
    assert told == 2 * [
        Observation(
            f"LABEL_STUDIO_MEDIA_ROOT ({tmp_path}) doesn't answer within 0.1 s; meanwhile they are fetched from Label "
            "Studio",
            LinkState.REMARK,
            "See to the network or the disk that it lies on.",
        )
    ]
    assert looks == [tmp_path]


@pytest.mark.parametrize(
    ("token", "kind"),
    [(LEGACY_TOKEN, "it is a legacy token"), (LEGACY_TOKEN[:30], "neither a Personal Access Token nor a legacy one")],
)
def test_a_refused_token_is_told_by_its_kind_and_not_shown(serve: StartServer, token: str, kind: str) -> None:
    server = serve(label_studio(whoami=reply(b'{"detail": "Invalid token."}', 401)))

    found = examined(server.url, token)["token"]

    assert found.state is LinkState.WRONG
    assert kind in found.detail
    assert token not in found.detail + str(found.fix)


@pytest.mark.parametrize(
    ("status", "detail", "told"),
    [
        (
            403,
            "You do not have permission to perform this action.",
            "Give that user the right, or use another user's token.",
        ),
        (500, "Unknown error", "See its log."),
        (500, "Can't resolve hostname yolo.internal", "as Label Studio reaches it"),
        (403, "URL resolves to a reserved network address", "USE_DEFAULT_BANNED_SUBNETS"),
    ],
)
def test_what_keeps_the_guard_from_being_asked_is_no_guard(
    serve: StartServer, status: int, detail: str, told: str
) -> None:
    answer = reply(json.dumps({"detail": detail}).encode(), status)
    server = serve(label_studio(whoami=reply(b'{"email": "me@example.com"}'), ml=answer))

    found = examined(server.url, backend_url="http://127.0.0.1:1")["network guard"]

    assert found.state is LinkState.WRONG
    assert told in str(found.fix)


def test_a_proxy_that_takes_no_posts_is_no_guard(serve: StartServer) -> None:
    server = serve(label_studio(whoami=reply(b'{"email": "me@example.com"}'), ml=reply(b"<html>", 403)))

    found = examined(server.url, backend_url="http://127.0.0.1:1")["network guard"]

    assert found.detail == f"A proxy in front of Label Studio at {server.url} refuses the backend (403)"
    assert found.fix == "Let the backend through, or set LABEL_STUDIO_URL to an address that goes around it."


@pytest.mark.parametrize("status", [400, 413])
def test_who_rejects_everything_in_label_studios_place_is_no_guard(serve: StartServer, status: int) -> None:
    server = serve(label_studio(whoami=reply(b'{"email": "me@example.com"}'), ml=reply(b"<html>", status)))
    found = examined(server.url, backend_url="http://127.0.0.1:1")["network guard"]
    assert found.state is LinkState.WRONG
    assert str(status) in found.detail


@pytest.mark.parametrize(("status", "words"), [(403, "refuses the backend"), (404, "isn't Label Studio's address")])
def test_who_refuses_in_label_studios_place_makes_no_token_wrong(serve: StartServer, status: int, words: str) -> None:
    found = examined(serve(label_studio(whoami=reply(b"<html>", status))).url)["token"]
    assert words in found.detail
    assert "legacy token" not in found.detail
    assert "Personal Access Token" not in (found.fix or "")


def test_nothing_that_label_studio_could_make_is_sent(serve: StartServer) -> None:
    refusal = reply(b'{"validation_errors": {"timeout": ["A valid number is required."]}}', 400)
    server = serve(label_studio(whoami=reply(b'{"email": "me@example.com"}'), ml=refusal, webhooks=refusal))

    assert examined(server.url, backend_url="http://127.0.0.1:1")["network guard"].state is LinkState.OK

    posted = {request.path: json.loads(request.body) for request in server.requests if request.method == "POST"}
    assert set(posted) == {"/api/ml/", "/api/webhooks/"}
    assert all("project" not in body for body in posted.values())
    assert (posted["/api/ml/"]["timeout"], posted["/api/webhooks/"]["actions"]) == ("none", ["none"])


@pytest.mark.parametrize(
    ("projects", "told"),
    [
        ([], "there is none yet"),
        ([{"id": 3, "title": "Nuts"}, {"id": 7, "title": "Bolts"}], 'name one with --project: 3 "Nuts", 7 "Bolts"'),
    ],
)
def test_without_a_name_only_the_only_project_is_taken(
    serve: StartServer, projects: list[dict[str, Any]], told: str
) -> None:
    listed = reply(json.dumps({"results": projects}).encode())
    server = serve(label_studio(whoami=reply(b'{"email": "me@example.com"}'), projects=listed))

    found = examined(server.url)["project"]

    assert (found.state, found.detail) == (LinkState.NOT_TRIED, told)


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"trains": False, "remark": "Start Training: the class X doesn't train", "told": []}, 1),
        ({"trains": True, "remark": None, "told": []}, 0),
        (None, 0),  # a backend of an earlier version
    ],
)
def test_that_a_backend_does_not_train_is_a_fact_and_no_fault(serve: StartServer, training: Any, told: int) -> None:
    index = {"model_class": "X", "status": "UP", "version": "0.1.0"} | ({"training": training} if training else {})
    backend = serve(reply(json.dumps(index).encode()))
    server = serve(label_studio())
    settings = load_settings(label_studio_url=server.url, label_studio_api_key=LEGACY_TOKEN)

    findings = examine(settings, Studio(server.url, LEGACY_TOKEN), backend_url=backend.url)

    of_backend = [finding for finding in findings if finding.check == "backend"]
    assert [finding.state for finding in of_backend] == [LinkState.OK] * (1 + told)
    assert [finding.detail for finding in of_backend[1:]] == ["Start Training: the class X doesn't train"] * told


def test_without_a_token_one_is_asked_for(serve: StartServer) -> None:
    server = serve(label_studio())
    settings = load_settings(label_studio_url=server.url)

    findings = {finding.check: finding for finding in examine(settings, Studio(server.url, None))}

    assert findings["Label Studio"].state is LinkState.OK
    assert "LABEL_STUDIO_API_KEY" in str(findings["token"].fix)


def test_a_proxy_that_asks_for_a_login_makes_no_token_wrong(serve: StartServer) -> None:
    """It lets the version through, as some do for health checks."""
    server = serve(label_studio(whoami=reply(b"<html>", 401, WWW_Authenticate="Basic")))

    found = examined(server.url)["token"]

    assert found.detail == f"A proxy in front of Label Studio at {server.url} asks for a login (401)"
    assert found.fix == "Let the backend through, or set LABEL_STUDIO_URL to an address that goes around it."


def test_a_task_of_each_kind_of_storage_is_looked_at(serve: StartServer) -> None:
    values: list[Any] = ["/data/upload/1/a.jpg", ["s3://b/1.jpg", "gs://b/2.jpg"], {"url": "x"}, None, "http://h/a.jpg"]
    tasks = [{"id": number, "data": {"photo": {"url": value}}} for number, value in enumerate(values)]
    server = serve(reply(json.dumps({"tasks": tasks, "total": len(tasks)}).encode()))
    (control,) = parse_labeling_config(
        """<View><Image name="image" value="$photo.url"/>
        <RectangleLabels name="label" toName="image"><Label value="car"/></RectangleLabels></View>"""
    ).controls
    served = ServedControl(control, info_of("a.pt"), "a.pt", map_labels(control, {0: "car"}, 0.25), 0.25)
    project = Project(Studio(server.url, LEGACY_TOKEN), 7, "Cells", "")
    found = one_of_each_kind(project, ProjectPlan((served,), "v"))
    assert {kind: task["id"] for kind, task in found.items()} == {
        "upload": 0, "s3": 1, "gs": 1, "no image": 2, "http": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("predicted", "flags", "state", "detail", "fix"),
    [
        (
            1000,
            reply(b'<pre>{"%s": true}</pre>' % QUICK_IMPORTS.encode()),
            LinkState.OK,
            "1000 tasks hold predictions already, and Label Studio counts anew only those that an import is about",
            None,
        ),
        (
            1500,
            reply(b'<pre>{"%s": false}</pre>' % QUICK_IMPORTS.encode()),
            LinkState.REMARK,
            "1500 tasks hold predictions already, and each import of more counts all of them anew (about 3 s), unless "
            f"Label Studio runs with {QUICK_IMPORTS}=true",
            f"Start Label Studio with {QUICK_IMPORTS}=true.",
        ),
        (
            10_000,
            reply(b"", 403),
            LinkState.REMARK,
            "10000 tasks hold predictions already, and each import of more counts all of them anew (about 20 s), "
            f"unless Label Studio runs with {QUICK_IMPORTS}=true; whether it does can't be seen with this token",
            f"Start Label Studio with {QUICK_IMPORTS}=true.",
        ),
    ],
)
def test_slow_imports_are_remarked_where_many_tasks_hold_predictions(
    serve: StartServer, predicted: int, flags: Answer, state: LinkState, detail: str, fix: str | None
) -> None:
    server = serve(label_studio_with(predicted, flags))

    found = examined(server.url)["imports"]

    assert (found.state, found.detail, found.fix) == (state, detail, fix)


def test_where_few_hold_predictions_nothing_is_said_of_imports(serve: StartServer) -> None:
    server = serve(label_studio_with(999, reply(b"", 500)))

    findings = examined(server.url)

    assert findings["project"].state is LinkState.OK
    assert "imports" not in findings


def label_studio_with(predicted: int, flags: Answer) -> Answer:
    """Label Studio with one project, so many tasks of which hold predictions."""
    project = {"id": 3, "title": "Nuts", "label_config": "<View/>"}
    answers: dict[str, Any] = {
        "whoami": {"email": "me@example.com"},
        "projects": {"results": [project]},
        "3": project,
        "tasks": {"tasks": [], "total": predicted},
    }
    known = {name: reply(json.dumps(answer).encode()) for name, answer in answers.items()}
    return label_studio(**known, **{"feature-flags": flags})


def test_a_project_that_nothing_was_trained_for_yet_is_told_what_it_needs() -> None:
    config = (
        '<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="i"><Label value="newt"/>'
        '<Label value="toad"/></RectangleLabels></View>'
    )
    url = "http://127.0.0.1:1"
    settings = load_settings(label_studio_url=url, label_studio_api_key=LEGACY_TOKEN, training="on")
    studio = Studio(url, LEGACY_TOKEN)
    with closing(Predictor(settings, fake_catalog(lambda _: FakeEngine(info_of("absent"))))) as predictor:
        project = Project(studio, 7, "Newts", config, "2023-11-14T22:13:20Z")
        it = Installation(settings, studio, predictor, lambda _: project, None)
        lack, version = labels(it)
        for link in (images, prediction):
            with pytest.raises(NotTriedError):
                list(link(it))
    assert lack == Observation(
        "nothing is trained yet, and absent has no class for newt, toad: tasks get no predictions",
        LinkState.REMARK,
        "Label 40 images or more, and press Start Training (Settings > Model), or run "
        "`yolo-backend train --project 7`.",
    )
    assert version == Observation("the model_version is untrained")


def test_all_weights_are_told_of_also_after_some_that_cannot_be_had(clean_environment: pytest.MonkeyPatch) -> None:
    def load(name: str) -> FakeEngine:
        if name.startswith("no"):
            raise WeightsError(f"there is no {name}")
        engine = FakeEngine(info_of(name))
        engine.gate.set()
        return engine

    url = "http://127.0.0.1:1"
    settings = load_settings(model_name="no-1.pt, there.pt, no-2.pt", label_studio_url=url)
    studio = Studio(url, None)
    with closing(Predictor(settings, fake_catalog(load))) as predictor:
        found = list(weights(Installation(settings, studio, predictor, None, None)))
    assert [each.state for each in found] == [LinkState.WRONG, LinkState.OK, LinkState.WRONG]
    assert [each.detail.partition(":")[0] for each in found][1] == "there.pt"
    assert "no-1.pt" in found[0].detail
    assert "no-2.pt" in found[2].detail
    assert found[0].fix == found[2].fix is not None
