"""The server: Label Studio's protocol with the real model class and real weights, and 4xx for every bad body."""

from __future__ import annotations

import base64
import html
import itertools
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from werkzeug.test import TestResponse

from tests.fakes.weights import fake_catalog
from tests.harness.http_server import Answer, StartServer, redirect, reply
from tests.harness.pictures import encode
from tests.harness.waiting import wait_for
from yolo_backend.detection.engine import Engine
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.model import YoloBackend
from yolo_backend.protocol import Prediction
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import Predictor, default_predictor
from yolo_backend.settings import Settings, load_settings

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/>
</RectangleLabels></View>"""
WBC_ONLY = CONFIG.replace('<Label value="RBC"/>', "").replace('<Label value="Platelets"/>', "")
LABELS_AND_RECTANGLE = """<View><Image name="image" value="$image"/>
<Labels name="label" toName="image"><Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/></Labels>
<Rectangle name="bbox" toName="image"/></View>"""
WAIT_S = 20
_projects = itertools.count(100)
NOTHING = np.full((64, 64, 3), 127, np.uint8)


# The app, over one predictor that YoloBackend finds too


@pytest.fixture(scope="module")
def predictor(
    bccd_weights: Path, bccd_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Predictor]:
    with pytest.MonkeyPatch.context() as environment:
        environment.chdir(tmp_path_factory.mktemp("cwd"))
        for variable, value in bccd_environment.items():
            environment.setenv(variable, value)
        environment.setenv("DEVICE", "cpu")
        environment.setenv("MAX_REQUEST_MEGABYTES", "8")
        for variable in ("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"):
            environment.delenv(variable, raising=False)
        default_predictor.cache_clear()
        made = default_predictor()
        made.catalog.wait_for_info(bccd_weights.name, 60)
        made.catalog.wait_for_runtime(bccd_weights.name)
        yield made
        made.close()
        default_predictor.cache_clear()


@pytest.fixture(scope="module")
def app(predictor: Predictor) -> Flask:
    return create_app(ModelClass.of(YoloBackend), predictor)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def other_app(predictor: Predictor, backend_class: Any = YoloBackend, **settings: Any) -> FlaskClient:
    """An app with other settings and the same models; `YoloBackend` still asks the default predictor."""
    made = Predictor(predictor.settings.model_copy(update=settings), predictor.catalog)
    return create_app(ModelClass.of(backend_class), made).test_client()


@pytest.fixture(scope="module")
def photo(bccd_images: list[NDArray[Any]]) -> str:
    return data_address(encode(bccd_images[0]))


def data_address(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def task(value: Any, task_id: int = 1) -> Any:
    return {"id": task_id, "data": {"image": value}}


def predict(client: FlaskClient, tasks: Any, label_config: str = CONFIG, **more: Any) -> list[Any]:
    """The results for tasks of a new project, for what was answered a moment ago isn't answered again."""
    body = {"tasks": tasks, "label_config": label_config, "project": f"{next(_projects)}.2", **more}
    response = client.post("/predict", json=body)
    assert response.status_code == 200, response.text
    results = response.get_json()["results"]
    assert isinstance(results, list)
    assert len(results) == len(tasks)
    return results


def setup(client: FlaskClient, label_config: str = CONFIG, project: str = "1.2", **more: Any) -> TestResponse:
    return client.post("/setup", json={"project": project, "schema": label_config, **more})


def assert_one_line_error(response: TestResponse, *statuses: int) -> str:
    """An error as JSON, in one line, that is the reason phrase too: Label Studio shows no other text."""
    assert response.status_code in (statuses or range(400, 500)), response.text
    assert response.mimetype == "application/json"
    body = response.get_json()
    assert list(body) == ["error"]
    message = str(body["error"])
    assert message
    assert len(message.splitlines()) == 1
    assert "Traceback" not in message
    reason = response.status.partition(" ")[2]
    assert not re.search(r"[^\x20-\x7e\xa0-\xff]", reason)
    if not re.search(r"[^\x20-\x7e\xa0-\xff]", message) and len(message) <= 200:
        assert reason == message
    return message


# Bad bodies


BAD_JSON = [
    b"",
    b"not JSON",
    b"{",
    b"\xff\xfe\x00",
    b"null",
    b"5",
    b'"text"',
    b"[]",
    b"[{}]",
    b"true",
    b"NaN",
    b"{'tasks': []}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"tasks": ' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("route", ["/setup", "/predict", "/webhook"])
@pytest.mark.parametrize("body", BAD_JSON, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_body_that_is_no_json_object(client: FlaskClient, route: str, body: bytes, content_type: str) -> None:
    assert_one_line_error(client.post(route, data=body, content_type=content_type), 400)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tasks": None},
        {"tasks": {}},
        {"tasks": "text"},
        {"tasks": 5},
        {"tasks": []},
        {"tasks": [None]},
        {"tasks": ["text"]},
        {"tasks": [[]]},
        {"tasks": [{"id": 1}, 5]},
        {"tasks": [{"id": 1}], "params": {"context": 5}},
        {"tasks": [{"id": 1}], "params": {"context": "text"}},
        {"tasks": [{"id": 1}], "params": {"context": [1]}},
    ],
)
def test_bad_tasks(client: FlaskClient, body: dict[str, Any]) -> None:
    assert_one_line_error(client.post("/predict", json={"label_config": CONFIG, **body}), 400)


@pytest.mark.parametrize("label_config", [None, "", "  ", 5, [], {}, True])
def test_no_labeling_config(client: FlaskClient, label_config: Any) -> None:
    body = {"tasks": [task("x")], "label_config": label_config, "schema": label_config}
    assert_one_line_error(client.post("/predict", json=body), 400)
    assert_one_line_error(client.post("/setup", json=body), 400)


@pytest.mark.parametrize(
    ("label_config", "about"),
    [
        ("not XML", "config"),
        ("<View>", "config"),
        ("<View/>", "RectangleLabels"),
        (CONFIG.replace("RectangleLabels", "VectorLabels"), "RectangleLabels"),
        (CONFIG.replace("RectangleLabels", "PolygonLabels"), "segmentation or OBB weights"),
        (CONFIG.replace("RectangleLabels", "BrushLabels"), "segmentation weights"),
        (CONFIG.replace('toName="image"', 'toName="other"'), "RectangleLabels"),
        (CONFIG.replace('value="$image"', 'value="image"'), "$image"),
        (CONFIG.replace('toName="image"', 'toName="image" model_path="../x.pt"'), "model_path"),
        (CONFIG.replace('toName="image"', 'toName="image" model_path="none.pt"'), "none.pt"),
        (CONFIG.replace('toName="image"', 'toName="image" model_obb="true"'), "model_obb"),
        (CONFIG.replace('value="RBC"', 'value="RBC" model_score_threshold="2"'), "threshold"),
        (CONFIG.replace('<Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/>', ""), "Label"),
        (WBC_ONLY.replace("WBC", "Größe &amp; &lt;b&gt;"), "Größe & <b>"),
        (WBC_ONLY.replace("WBC", "L" * 3000), "LLL"),
        ('<?xml version="1.0" encoding="utf-8"?><View/>', "config"),
        (CONFIG.replace("RBC", "\ud800"), "config"),
    ],
)
def test_a_labeling_config_that_cannot_be_served(client: FlaskClient, label_config: str, about: str) -> None:
    for response in (
        wait_until_loaded(client, label_config),
        client.post("/predict", json={"tasks": [task("x")], "label_config": label_config}),
    ):
        assert about in assert_one_line_error(response, 422)


def wait_until_loaded(client: FlaskClient, label_config: str) -> TestResponse:
    """The answer of `/setup` once it no longer says that the weights are being read."""
    for _ in range(400):
        response = setup(client, label_config)
        if response.status_code != 503:
            break
        assert "try again" in assert_one_line_error(response, 503)
        threading.Event().wait(0.05)
    return response


def test_a_labeling_config_downloads_nothing(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It picks from the files that the operator put there, though its name be that of a release."""
    downloads: list[object] = []
    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", downloads.append)
    response = wait_until_loaded(client, CONFIG.replace('toName="image"', 'toName="image" model_path="yolo11m.pt"'))
    assert "yolo11m.pt" in assert_one_line_error(response, 422)
    assert downloads == []


_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([CONFIG, "<View/>"])
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)
_TASKS = st.one_of(_JSON, st.lists(st.one_of(_JSON, st.fixed_dictionaries({"id": _JSON, "data": _JSON})), max_size=3))
_BODY = st.fixed_dictionaries(
    {},
    optional={
        "tasks": _TASKS,
        "label_config": st.one_of(_JSON, st.just(CONFIG)),
        "schema": st.one_of(_JSON, st.just(CONFIG)),
        "project": _JSON,
        "hostname": _JSON,
        "access_token": _JSON,
        "params": st.one_of(_JSON, st.fixed_dictionaries({"context": _JSON})),
        "action": _JSON,
    },
)


@settings(max_examples=100)
@given(body=_BODY, route=st.sampled_from(["/setup", "/predict", "/webhook"]))
def test_any_body_is_served_or_told(app: Flask, body: dict[str, Any], route: str) -> None:
    client = app.test_client()
    response = client.post(route, data=json.dumps(body), content_type="application/json")
    if response.status_code == 200:
        assert isinstance(response.get_json(), dict)
    else:
        assert_one_line_error(response)
    assert client.get("/health").status_code == 200


_WRONG_TASK = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"id": _JSON}),
    st.fixed_dictionaries({"id": _JSON, "data": _JSON}),
    st.fixed_dictionaries({"id": _JSON, "data": st.fixed_dictionaries({"image": _JSON})}),
)


@given(st.lists(_WRONG_TASK, min_size=1, max_size=4))
def test_any_wrong_task_is_an_empty_list(app: Flask, tasks: list[dict[str, Any]]) -> None:
    assert predict(app.test_client(), tasks) == [[]] * len(tasks)


@pytest.mark.parametrize("key", ["project", "hostname", "access_token"])
def test_a_text_that_would_be_kept_is_short(client: FlaskClient, key: str) -> None:
    assert key in assert_one_line_error(setup(client, **{key: "x" * 5000}), 400)


def test_a_labeling_config_that_is_too_long(client: FlaskClient) -> None:
    config = CONFIG.replace("<View>", f"<View><!-- {'x' * 1_000_000} -->")
    assert "longer than" in assert_one_line_error(setup(client, config), 422)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize("route", ["/setup", "/predict", "/webhook"])
def test_a_web_page_cannot_post(client: FlaskClient, route: str, headers: dict[str, str]) -> None:
    """A browser sends a page's text/plain without asking first."""
    response = client.post(route, data=b"{}", content_type="text/plain", headers=headers)
    assert "web page" in assert_one_line_error(response, 403)


def test_after_bad_bodies_the_next_request_is_served(client: FlaskClient, photo: str) -> None:
    client.post("/predict", data=b"{", content_type="application/json")
    client.post("/predict", json={"tasks": [task(photo)], "label_config": "<View>"})
    assert predict(client, [task(photo)])[0]["result"]


@pytest.mark.parametrize("length", [2**18 - 1, 2**18, 1_000_000])
def test_a_body_of_several_pieces_is_read_whole(client: FlaskClient, photo: str, length: int) -> None:
    body = json.dumps({"tasks": [task(photo)], "label_config": CONFIG})
    response = client.post("/predict", data=body.ljust(length), content_type="application/json")
    assert response.get_json()["results"][0]["result"]


def test_a_body_that_is_too_large(client: FlaskClient) -> None:
    body = json.dumps({"tasks": [task("x" * 9_000_000)], "label_config": CONFIG})
    assert_one_line_error(client.post("/predict", data=body, content_type="application/json"), 413)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "route", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("GET", "/predict", 405),
        ("GET", "/setup", 405),
        ("DELETE", "/health", 405),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/health/", 404),
    ],
)
def test_no_such_route(client: FlaskClient, method: str, route: str, status: int) -> None:
    assert_one_line_error(client.open(route, method=method), status)


def test_an_error_of_ours_is_opaque_to_the_client_and_whole_in_the_log(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(YoloBackend):
        def predict(self, tasks: Any, context: Any = None, **kwargs: Any) -> Any:
            raise RuntimeError("a secret of ours")

    client = other_app(predictor, Broken)
    response = client.post("/predict", json={"tasks": [task("x")], "label_config": CONFIG})
    assert "secret" not in assert_one_line_error(response, 500)
    assert any(record.exc_info and "a secret of ours" in str(record.exc_info[1]) for record in caplog.records)
    assert client.get("/health").status_code == 200


def test_an_error_of_a_model_class_is_told_by_the_table(predictor: Predictor) -> None:
    class Picky(YoloBackend):
        def predict(self, tasks: Any, context: Any = None, **kwargs: Any) -> Any:
            raise LabelingConfigError("Größe is no label\nof mine")

    response = other_app(predictor, Picky).post("/predict", json={"tasks": [task("x")], "label_config": CONFIG})
    assert response.status_code == 422
    assert response.status == "422 Größe is no label of mine"


@pytest.mark.parametrize(
    ("labels", "reason", "whole"),
    [
        (["Größe"], "None of the labels Größe is", "None of the labels Größe is"),
        (["x1", "車"], "None of the labels x1, (label 2, U+8ECA) is", "None of the labels x1, (label 2, 車) is"),
        (["🚗 car"], "(label 1, U+1F697 car)", "(label 1, 🚗 car)"),
        (["грузовик"], "(label 1, U+0433 U+0440 U+0443 U+0437...)", "(label 1, грузовик)"),
        (["œuf", "a", "Ω"], "(label 1, U+0153uf), a, (label 3, U+03A9)", "(label 1, œuf), a, (label 3, Ω)"),
    ],
)
def test_a_label_that_latin_1_cannot_say_is_named_by_its_place_and_whole_on_the_status_page(
    client: FlaskClient, labels: list[str], reason: str, whole: str
) -> None:
    written = "".join(f'<Label value="{label}"/>' for label in labels)
    label_config = WBC_ONLY.replace('<Label value="WBC"/>', written)
    response = setup(client, label_config, "87.1")
    assert response.status_code == 422
    assert reason in response.status
    assert "which has RBC, WBC, Platelets: rename a label, or give it predicted_values=" in response.status
    (project,) = [item for item in client.get("/").get_json()["projects"] if item["project"] == "87"]
    assert whole in project["reason"]
    assert (project["model_version"], project["controls"]) == (None, [])
    assert whole in html.unescape(client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert setup(client, CONFIG, "87.1").status_code == 200
    (project,) = [item for item in client.get("/").get_json()["projects"] if item["project"] == "87"]
    assert project["reason"] is None


def test_one_control_that_can_be_served_is_enough(
    client: FlaskClient, photo: str, caplog: pytest.LogCaptureFixture
) -> None:
    label_config = CONFIG.replace(
        "</View>",
        """<VectorLabels name="outline" toName="image"><Label value="WBC"/></VectorLabels>
        <BrushLabels name="masks" toName="image"><Label value="WBC"/></BrushLabels>
        <RectangleLabels name="ours" toName="image" model_path="none.pt"><Label value="RBC"/></RectangleLabels>
        <RectangleLabels name="cars" toName="image"><Label value="car"/></RectangleLabels></View>""",
    )
    caplog.set_level("INFO")
    while (response := setup(client, label_config, "88.1")).status_code == 503:  # the weights' file is looked for
        time.sleep(0.05)
    assert response.status_code == 200
    (project,) = [item for item in client.get("/").get_json()["projects"] if item["project"] == "88"]
    assert [control["from_name"] for control in project["controls"]] == ["label"]
    masks, missing, unmatched, vectors = project["not_served"]
    assert masks.startswith('The control "masks" paints masks, which want segmentation weights, and bccd.pt are detect')
    assert "none.pt" in missing
    assert unmatched.startswith("None of the labels car is a class of bccd.pt, which has RBC, WBC, Platelets")
    assert vectors.startswith('VectorLabels "outline" isn\'t predicted: write RectangleLabels')
    page = html.unescape(client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True))
    for sentence in (masks, missing, unmatched, vectors):
        assert sentence in page
        assert f"Project 88.1: {sentence}" in caplog.messages
    (prediction,) = predict(client, [task(photo)], label_config)
    assert {region["from_name"] for region in prediction["result"]} == {"label"}
    assert prediction["model_version"] == response.get_json()["model_version"]
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []


# Routes that answer


def test_health(client: FlaskClient) -> None:
    response = client.get("/health")
    assert response.status_code == 200
    assert response.get_json() == {"status": "UP", "model_class": "YoloBackend"}


def test_index_tells_the_model(client: FlaskClient, predictor: Predictor) -> None:
    body = client.get("/").get_json()
    assert (body["status"], body["model"]) == ("UP", predictor.settings.model_name)


@pytest.mark.parametrize("content", [None, b"broken"])
def test_weights_that_cannot_be_had_are_told_by_health_and_setup(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "mine.pt").write_bytes(content)
    predictor = Predictor(load_settings(model_root=tmp_path, model_name="mine.pt", device="cpu"))
    client = create_app(ModelClass.of(YoloBackend), predictor).test_client()
    response = wait_until_loaded(client, CONFIG)
    assert "mine.pt" in assert_one_line_error(response, 422)
    assert "mine.pt" in assert_one_line_error(client.get("/health"), 503)
    assert client.get("/").get_json()["status"] == "DOWN"
    predictor.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            redirect("https://studio.example/api/current-user/whoami?token=s3cr3t", 308),
            "{url} answers a redirect to https://studio.example: set LABEL_STUDIO_URL to that",
        ),
        (
            reply(b"<html>", 401, WWW_Authenticate="Basic"),
            "A proxy in front of Label Studio at {url} asks for a login (401): let the backend through, or set "
            "LABEL_STUDIO_URL to an address that goes around it",
        ),
        (
            redirect("https://sso.example/login?rd=s3cr3t"),
            "A proxy in front of Label Studio asks for a login (it leads to sso.example): let the backend through, or "
            "set LABEL_STUDIO_URL to an address that goes around it",
        ),
    ],
)
def test_who_stands_in_front_of_label_studio_is_told_by_setup(
    bccd_weights: Path, serve: StartServer, answer: Answer, told: str
) -> None:
    url = serve(answer).url
    environment = {"model_root": bccd_weights.parent, "model_name": bccd_weights.name, "device": "cpu"}
    predictor = Predictor(load_settings(**environment, label_studio_url=url, label_studio_api_key="0" * 40))
    client = create_app(ModelClass.of(YoloBackend), predictor).test_client()
    response = wait_until_loaded(client, CONFIG)
    message = assert_one_line_error(response, 424)
    assert message == told.format(url=url)
    assert response.status == f"424 {message}", "whole, and with what to do"
    predictor.close()


def test_one_photo(client: FlaskClient, photo: str) -> None:
    (prediction,) = predict(client, [task(photo)])
    assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []
    labels = [region["value"]["rectanglelabels"][0] for region in prediction["result"]]
    assert set(labels) <= {"RBC", "WBC", "Platelets"}
    assert len(labels) > 5
    scores = [region["score"] for region in prediction["result"]]
    assert scores == sorted(scores, reverse=True)
    assert prediction["score"] == pytest.approx(sum(scores) / len(scores))
    assert {(region["original_width"], region["original_height"]) for region in prediction["result"]} == {(640, 480)}


def places(prediction: dict[str, Any]) -> list[Any]:
    return [(region["value"], region["score"]) for region in prediction["result"]]


def test_the_same_photo_alone_and_among_others(client: FlaskClient, bccd_images: list[NDArray[Any]]) -> None:
    tasks = [task(data_address(encode(image)), number) for number, image in enumerate(bccd_images[:5])]
    together = predict(client, tasks)
    for one, prediction in zip(tasks, together, strict=True):
        (alone,) = predict(client, [one])
        assert len(alone["result"]) == len(prediction["result"]) > 0
        for (value, score), (expected, expected_score) in zip(places(prediction), places(alone), strict=True):
            for key in ("x", "y", "width", "height"):
                assert value[key] == pytest.approx(expected[key], abs=1e-3)
            assert value["rectanglelabels"] == expected["rectanglelabels"]
            assert score == pytest.approx(expected_score, abs=1e-4)


BROKEN_TASKS = {
    "no data": {"id": 1},
    "data of another type": {"id": 1, "data": []},
    "missing key": {"id": 1, "data": {"photo": "x"}},
    "null": task(None),
    "a number": task(5),
    "a list where one image belongs": task(["x"]),
    "no address": task("photo.jpg"),
    "no image": task("data:image/png;base64,SGVsbG8="),
    "an empty image": task("data:image/png;base64,"),
    "no such host": task("http://no-such-host.invalid/a.jpg"),
    "behind a Label Studio that nobody named": task("/data/upload/1/a.jpg"),
}


def test_one_broken_task_among_many_fails_alone(
    client: FlaskClient, photo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tasks = [task(photo), *BROKEN_TASKS.values(), task(photo)]
    results = predict(client, tasks)
    assert results[1:-1] == [[]] * len(BROKEN_TASKS)
    assert places(results[0]) == places(results[-1]) != []
    told = [record for record in caplog.records if "is not predicted" in record.getMessage()]
    assert len(told) == len(BROKEN_TASKS)
    assert all(len(record.getMessage().splitlines()) == 1 and not record.exc_info for record in told)


def test_a_task_may_lack_one_of_two_images_but_not_both(client: FlaskClient, photo: str) -> None:
    config = """<View><Image name="front" value="$front"/><Image name="back" value="$back"/>
    <RectangleLabels name="on_front" toName="front"><Label value="RBC"/></RectangleLabels>
    <RectangleLabels name="on_back" toName="back"><Label value="RBC"/></RectangleLabels></View>"""
    datas: list[Any] = [{"front": photo, "back": photo}, {"front": photo}, {"front": None, "back": photo}, {}]
    tasks = [{"id": number, "data": data} for number, data in enumerate(datas)]

    *predictions, neither = predict(client, tasks, config)

    controls = [{region["from_name"] for region in prediction["result"]} for prediction in predictions]
    assert controls == [{"on_front", "on_back"}, {"on_front"}, {"on_back"}]
    assert neither == []


@pytest.mark.parametrize("broken", BROKEN_TASKS.values(), ids=BROKEN_TASKS.keys())
def test_a_broken_task_alone(client: FlaskClient, broken: dict[str, Any]) -> None:
    assert predict(client, [broken]) == [[]]
    assert predict(client, [broken], params={"context": {"result": [drawn([20, 20, 15, 25])]}}) == [{"result": []}]


# Smart tools


def drawn(place: list[float], label: str = "WBC", **more: Any) -> dict[str, Any]:
    """A rectangle as the page sends it."""
    value = dict(zip(("x", "y", "width", "height"), place, strict=True)) | {"rotation": 0, "rectanglelabels": [label]}
    plain = {"from_name": "label", "to_name": "image", "type": "rectanglelabels", "image_rotation": 0}
    sizes = {"original_width": 640, "original_height": 480}
    return {"id": f"drawn{next(_projects)}", **plain, **sizes, "origin": "manual", "value": value, **more}


def place_of(region: dict[str, Any]) -> list[float]:
    return [region["value"][key] for key in ("x", "y", "width", "height")]


def click(client: FlaskClient, asked: dict[str, Any], *rectangles: Any) -> dict[str, Any]:
    (answer,) = predict(client, [asked], params={"context": {"result": [*rectangles]}, "login": None, "password": None})
    assert isinstance(answer, dict)
    return answer


def test_a_smart_rectangle_brings_its_box_once(client: FlaskClient, photo: str) -> None:
    (whole,) = predict(client, [task(photo)])
    cells = [region for region in whole["result"] if region["value"]["rectanglelabels"] == ["RBC"]][:2]
    rectangles = [drawn([number + 0.3 for number in place_of(cell)], "RBC") for cell in cells]

    first = click(client, task(photo), rectangles[0])
    assert LabelInterface(CONFIG).validate_prediction(first, return_errors=True) == []
    (box,) = first["result"]
    assert box == cells[0] | {"id": box["id"]}
    assert box["id"] not in {region["id"] for region in whole["result"]}
    assert first["score"] == box["score"]
    assert first["model_version"] == whole["model_version"]

    both = click(client, task(photo), *rectangles)
    assert [place_of(region) for region in both["result"]] == [place_of(cell) for cell in cells]
    assert LabelInterface(CONFIG).validate_prediction(both, return_errors=True) == []
    saved = task(photo) | {"drafts": [{"id": 1, "result": [box, rectangles[0]]}], "annotations": []}
    (other,) = click(client, saved, *rectangles)["result"]
    assert place_of(other) == place_of(cells[1])
    saved["annotations"] = [{"id": 1, "result": [other]}]
    assert click(client, saved, *rectangles) == {"result": []}


def test_a_smart_rectangle_of_another_label_or_place_brings_nothing(client: FlaskClient, photo: str) -> None:
    (whole,) = predict(client, [task(photo)])
    (white,) = (place_of(each) for each in whole["result"] if each["value"]["rectanglelabels"] == ["WBC"])
    assert [place_of(region) for region in click(client, task(photo), drawn(white))["result"]] == [white]
    for other in (
        drawn(white, "Platelets"),
        drawn(white, "no label"),
        drawn([0, 0, 3, 3]),
        drawn(white, from_name="x"),
    ):
        assert click(client, task(photo), other) == {"result": []}
    assert click(client, task(photo)) == {"result": []}


@pytest.mark.parametrize(
    "body", [{}, {"result": None}, {"result": "x"}, {"result": [5]}, {"result": {"id": 1}}, {"x": 1}]
)
def test_a_context_of_any_shape_is_answered_with_nothing(client: FlaskClient, photo: str, body: Any) -> None:
    (answer,) = predict(client, [task(photo)], params={"context": body or {"": ""}})
    assert answer == {"result": []}


def test_a_smart_rectangle_may_bring_nothing_for_nan(client: FlaskClient, photo: str) -> None:
    region = json.dumps(drawn([20, 20, 15, 25])).replace("15", "NaN", 1)
    body = (
        f'{{"tasks": [{json.dumps(task(photo))}], "label_config": {json.dumps(CONFIG)}, "project": "9.9", '
        f'"params": {{"context": {{"result": [{region}, {region.replace("NaN", "Infinity")}]}}}}}}'
    )
    response = client.post("/predict", data=body, content_type="application/json")
    assert (response.status_code, response.get_json()) == (200, {"results": [{"result": []}]})


def test_of_a_list_of_images_the_drawn_page_answers(client: FlaskClient, photo: str, bccd_images: list[Any]) -> None:
    config = CONFIG.replace('value="$image"', 'valueList="$pages"')
    pages = {"id": 1, "data": {"pages": [photo, data_address(encode(bccd_images[0][:, ::-1]))]}}
    (whole,) = predict(client, [pages], config)
    for page in (0, 1):
        (white,) = (
            place_of(region)
            for region in whole["result"]
            if region["item_index"] == page and region["value"]["rectanglelabels"] == ["WBC"]
        )
        context = {"result": [drawn(white, item_index=page)]}
        (answer,) = predict(client, [pages], config, params={"context": context})
        assert [(region["item_index"], place_of(region)) for region in answer["result"]] == [(page, white)]


def test_a_finish_of_ones_own_comes_before_the_rectangle(predictor: Predictor, photo: str) -> None:
    """It sees the whole prediction, and what it moved, relabelled or took away is what is compared."""

    class Mine(YoloBackend):
        def predict(self, tasks: Any, context: Any = None, **kwargs: Any) -> Any:
            return default_predictor().predict(tasks, self.label_config, context=context, finish=self.finish)

        @staticmethod
        def finish(task: Any, prediction: Prediction) -> Prediction:
            for region in prediction["result"]:
                region["value"]["rectanglelabels"] = ["Platelets"]
            return prediction

    (white,) = (
        place_of(region)
        for region in predict(other_app(predictor), [task(photo)])[0]["result"]
        if region["value"]["rectanglelabels"] == ["WBC"]
    )
    client = other_app(predictor, Mine)
    assert click(client, task(photo), drawn(white)) == {"result": []}
    (box,) = click(client, task(photo), drawn(white, "Platelets"))["result"]
    assert (box["value"]["rectanglelabels"], place_of(box)) == (["Platelets"], white)


@pytest.mark.parametrize("params", [None, [], "text", {}, {"context": None}])
def test_other_params_are_no_context(client: FlaskClient, params: Any) -> None:
    assert predict(client, [task(None)], params=params) == [[]]


def test_an_image_without_anything_has_an_empty_prediction(client: FlaskClient) -> None:
    (prediction,) = predict(client, [task(data_address(encode(NOTHING)))])
    assert (prediction["result"], prediction["score"]) == ([], 0.0)


def test_the_pages_of_a_list(client: FlaskClient, photo: str) -> None:
    label_config = CONFIG.replace('value="$image"', 'valueList="$pages"')
    nothing = data_address(encode(NOTHING))
    (prediction,) = predict(client, [{"id": 1, "data": {"pages": [photo, nothing, photo]}}], label_config)
    assert {region["item_index"] for region in prediction["result"]} == {0, 2}
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    assert predict(client, [{"id": 1, "data": {"pages": []}}], label_config) == [[]]
    assert predict(client, [{"id": 1, "data": {"pages": [photo, None]}}], label_config) == [[]]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("$image.url", {"image": {"url": "PHOTO"}}),
        ("$images[0]", {"images": ["PHOTO", "other.jpg"]}),
        ("$pages[1].image", {"pages": [{"image": "other.jpg"}, {"image": "PHOTO"}]}),
        ("$image", {"image": ["PHOTO"]}),
        ("$image.url", {"image.url": "PHOTO"}),
        ("$a.b[0].c", {"a": {"b": [{"c": "PHOTO"}]}}),
        ("data:image/png;base64,$content", {"content": "CONTENT"}),
    ],
)
def test_an_image_where_the_page_finds_it(client: FlaskClient, photo: str, value: str, data: dict[str, Any]) -> None:
    label_config = CONFIG.replace("$image", value)
    filled = json.loads(json.dumps(data).replace("PHOTO", photo).replace("CONTENT", photo.partition(",")[2]))
    assert setup(client, label_config).status_code == 200
    (prediction,) = predict(client, [{"id": 1, "data": filled}], label_config)
    (expected,) = predict(client, [task(photo)])
    assert without_ids(prediction["result"]) == without_ids(expected["result"])
    assert "item_index" not in prediction["result"][0]


def without_ids(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in region.items() if name != "id"} for region in regions]


@pytest.mark.parametrize(
    ("value", "data", "reason"),
    [
        ("$image", {"image": ["a.jpg", "b.jpg"]}, '"image" is a list of 2 images: write valueList="$image" in the'),
        (
            "$image",
            {"image": {"n": 1, "url": "a.jpg"}},
            'not an address, but an object: write value="$image.url" in the labeling config, because it has "n", "url"',
        ),
        ("$image", {"image": {}}, "in the labeling config, because it has nothing in it"),
        ("$image.url", {"image": "a.jpg"}, 'the task\'s data has no "image.url"'),
        ("$images[3]", {"images": ["a.jpg"]}, 'the task\'s data has no "images[3]"'),
        ("$image", {"image": []}, '"image" is an empty list'),
    ],
)
def test_an_image_that_is_not_where_the_config_says(
    client: FlaskClient, value: str, data: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    label_config = CONFIG.replace("$image", value)
    assert predict(client, [{"id": 41, "data": data}], label_config) == [[]]
    assert reason in caplog.text


def test_labels_with_a_rectangle_are_two_regions_a_box(client: FlaskClient, photo: str) -> None:
    label_config = LABELS_AND_RECTANGLE
    assert setup(client, label_config).status_code == 200
    (prediction,) = predict(client, [task(photo)], label_config)
    (expected,) = predict(client, [task(photo)])
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    places, labels = prediction["result"][::2], prediction["result"][1::2]
    assert len(places) == len(labels) == len(expected["result"]) > 5
    for place, label, region in zip(places, labels, expected["result"], strict=True):
        assert place["id"] == label["id"]
        assert (place["from_name"], place["type"]) == ("bbox", "rectangle")
        assert (label["from_name"], label["type"]) == ("label", "labels")
        where = {name: value for name, value in region["value"].items() if name != "rectanglelabels"}
        assert place["value"] == where
        assert label["value"] == {**where, "labels": region["value"]["rectanglelabels"]}
        assert place["score"] == label["score"] == region["score"]
    assert len({place["id"] for place in places}) == len(places)
    assert prediction["score"] == pytest.approx(expected["score"])


def test_labels_of_each_task_are_predicted(client: FlaskClient, photo: str, caplog: pytest.LogCaptureFixture) -> None:
    label_config = """<View><Image name="image" value="$image"/>
    <RectangleLabels name="label" toName="image" value="$labels"/></View>"""
    response = setup(client, label_config, "89.1")
    assert response.status_code == 200
    tasks = [
        {"id": number, "data": {"image": photo, "labels": labels}}
        for number, labels in enumerate(
            [
                [{"value": "RBC"}, {"value": "WBC", "background": "blue"}],
                [{"value": "Red", "predicted_values": "RBC", "model_score_threshold": 0.5}],
                [{"value": "car"}],
                None,
            ]
        )
    ]
    two, one, none, nothing = predict(client, tasks, label_config)
    assert {region["value"]["rectanglelabels"][0] for region in two["result"]} == {"RBC", "WBC"}
    assert {region["value"]["rectanglelabels"][0] for region in one["result"]} == {"Red"}
    assert min(region["score"] for region in one["result"]) > 0.5
    assert (none, nothing) == ([], [])
    assert "None of the labels car is a class of bccd.pt, which has RBC, WBC, Platelets" in caplog.text
    assert 'the task has no labels in its "labels": it should be a list such as [{"value": "car"}' in caplog.text
    for prediction in (two, one):
        assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
        assert prediction["model_version"] == response.get_json()["model_version"]
    page = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    assert "The labels come with each task, in <code>$labels</code>" in page


def test_labels_that_a_task_lacks_are_told_once_where_others_are_predicted(
    client: FlaskClient, photo: str, caplog: pytest.LogCaptureFixture
) -> None:
    label_config = CONFIG.replace("</View>", '<RectangleLabels name="more" toName="image" value="$labels"/></View>')
    labels: list[Any] = [None, None, [{"value": "RBC"}, {"value": "rbcc"}], [{"value": "RBC"}, {"value": "rbcc"}]]
    tasks = [{"id": number, "data": {"image": photo, "labels": some}} for number, some in enumerate(labels)]
    answered = predict(client, tasks, label_config)
    controls = [{region["from_name"] for region in prediction["result"]} for prediction in answered]
    assert controls == [{"label"}, {"label"}, {"label", "more"}, {"label", "more"}]
    told = [message for message in caplog.messages if "are without some labels" in message]
    assert len(told) == 2
    assert any('the task has no labels in its "labels"' in message for message in told)
    assert any("no class of bccd.pt for the task's labels rbcc" in message for message in told)


@pytest.mark.parametrize(
    "labels",
    [
        ["卡车", "轿车", "公交车", "行人"],
        ["машина", "грузовик", "автобус"],
        ["a very long name of a label that goes on and on", "another one that is just as long as the first"],
        ["x"],
    ],
)
def test_what_to_do_about_labels_without_a_class_is_not_cut(client: FlaskClient, labels: list[str]) -> None:
    written = "".join(f'<Label value="{label}"/>' for label in labels)
    response = setup(client, WBC_ONLY.replace('<Label value="WBC"/>', written))
    assert response.status.endswith('rename a label, or give it predicted_values="<a class>"')


def test_several_controls_and_images(client: FlaskClient, photo: str) -> None:
    label_config = """<View><Image name="a" value="$first"/><Image name="b" value="$second"/>
      <RectangleLabels name="red" toName="a"><Label value="RBC"/></RectangleLabels>
      <RectangleLabels name="white" toName="a"><Label value="Leukocyte" predicted_values="wbc"/></RectangleLabels>
      <RectangleLabels name="other" toName="b"><Label value="rbc"/></RectangleLabels></View>"""
    (prediction,) = predict(client, [{"id": 1, "data": {"first": photo, "second": photo}}], label_config)
    found = {
        (region["from_name"], region["to_name"], region["value"]["rectanglelabels"][0])
        for region in prediction["result"]
    }
    assert found <= {("red", "a", "RBC"), ("white", "a", "Leukocyte"), ("other", "b", "rbc")}
    assert {("red", "a", "RBC"), ("other", "b", "rbc")} <= found
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []


def test_thresholds_of_labels_count(client: FlaskClient, photo: str) -> None:
    def count(threshold: str) -> int:
        label_config = CONFIG.replace('toName="image"', f'toName="image" model_score_threshold="{threshold}"')
        return len(predict(client, [task(photo)], label_config)[0]["result"])

    assert count("0.05") > count("0.25") > count("0.8")
    assert count("0.25") == len(predict(client, [task(photo)])[0]["result"])


def test_two_projects_at_once(app: Flask, photo: str) -> None:
    """Each with a config of its own; label-studio-ml 1.0.9 keeps one for all."""
    renamed = CONFIG.replace('name="label"', 'name="cells"').replace('"RBC"', '"Red" predicted_values="RBC"')

    def ask(number: int) -> tuple[int, set[str], set[str]]:
        client = app.test_client()
        label_config = (CONFIG, renamed)[number % 2]
        assert setup(client, label_config, f"{number % 2}.5").status_code == 200
        result = predict(client, [task(photo)], label_config, project=f"{number % 2}.5")[0]["result"]
        return (
            number % 2,
            {region["from_name"] for region in result},
            {region["value"]["rectanglelabels"][0] for region in result} & {"RBC", "Red"},
        )

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(8)))
    assert answers == [(0, {"label"}, {"RBC"}), (1, {"cells"}, {"Red"})] * 4


# The token and the project's Label Studio


TOKEN = "0123456789abcdef" * 2 + "01234567"


def test_images_come_from_the_label_studio_that_introduced_itself(
    client: FlaskClient, serve: StartServer, bccd_files: list[Path]
) -> None:
    studio = serve(reply(bccd_files[0].read_bytes()))
    assert setup(client, project="77.1", hostname=studio.url, access_token=TOKEN).status_code == 200
    (prediction,) = predict(client, [task("/data/upload/77/a.jpg")], project="77.1")
    assert prediction["result"]
    assert [request.headers.get("authorization") for request in studio.requests] == [f"Token {TOKEN}"]


def test_metrics_count_and_tell_no_secret(
    client: FlaskClient, serve: StartServer, photo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="yolo_backend")

    def number_of(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    studio = serve(reply(b"no", 401))
    names = [
        'yolo_tasks_total{outcome="predicted"}',
        'yolo_tasks_total{outcome="failed"}',
        'yolo_image_failures_total{kind="unauthorized"}',
        'yolo_requests_total{route="/predict",status="200"}',
        'yolo_requests_total{route="unknown",status="404"}',
    ]
    before = [number_of(name) for name in names]
    regions_before = number_of("yolo_regions_total")
    setup(client, project="78.1", hostname=studio.url, access_token=TOKEN)
    secret_address = studio.url + "/data/upload/a.jpg?signature=S3CR3T"
    results = predict(client, [task(photo), task(secret_address)], project="78.1")
    client.get("/S3CR3T")
    assert [number_of(name) for name in names] == [number + 1 for number in before]
    assert number_of("yolo_regions_total") - regions_before == len(results[0]["result"])
    told = client.get("/metrics").text + caplog.text
    for secret in (TOKEN, "S3CR3T"):
        assert secret not in told
    assert f":{studio.port}" not in client.get("/metrics").text, "nor an address"


# Logins


LOGIN: dict[str, Any] = {"basic_auth_user": "label", "basic_auth_pass": "stüdio"}
ROUTES = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/versions"),
    ("GET", "/metrics"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/nothing"),
]


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.fixture(scope="module")
def locked(predictor: Predictor) -> FlaskClient:
    made = Settings(**{**predictor.settings.model_dump(), **LOGIN})
    return create_app(ModelClass.of(YoloBackend), Predictor(made, predictor.catalog)).test_client()


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        basic("label:wrong"),
        basic("wrong:stüdio"),
        basic("label"),
        basic(":"),
        basic("stüdio:label"),
        basic("label:stüdio "),
        {"Authorization": "Basic"},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic /////w=="},
        {"Authorization": "Bearer stüdio".encode().decode("latin-1")},
        {"Authorization": f"Token {TOKEN}"},
        {"Authorization": "Digest username=label"},
        {"Authorization": ""},
    ],
    ids=lambda headers: headers["Authorization"],
)
def test_a_wrong_login_is_refused_everywhere(
    locked: FlaskClient, method: str, route: str, headers: Mapping[str, str]
) -> None:
    response = locked.open(route, method=method, headers=headers)
    message = assert_one_line_error(response, 401)
    assert "BASIC_AUTH_USER" in message
    assert response.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_without_a_login_only_health_answers(locked: FlaskClient, method: str, route: str) -> None:
    response = locked.open(route, method=method)
    assert response.status_code == (200 if route == "/health" else 401)


@pytest.mark.parametrize(
    ("method", "route", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/health", 200),
        ("GET", "/versions", 200),
        ("POST", "/setup", 400),
        ("GET", "/x", 404),
    ],
)
def test_the_right_login_is_served(locked: FlaskClient, method: str, route: str, status: int) -> None:
    assert locked.open(route, method=method, headers=basic("label:stüdio")).status_code == status


def test_where_no_login_is_configured_any_is_ignored(client: FlaskClient) -> None:
    assert client.get("/", headers=basic("any:thing")).status_code == 200


# model_version


def version(client: FlaskClient, label_config: str = CONFIG) -> str:
    response = setup(client, label_config)
    assert response.status_code == 200, response.text
    return str(response.get_json()["model_version"])


def test_setup_and_predict_say_the_same_version(client: FlaskClient, photo: str) -> None:
    for label_config in (CONFIG, WBC_ONLY):
        predictions = predict(client, [task(photo), task(photo)], label_config)
        assert {prediction["model_version"] for prediction in predictions} == {version(client, label_config)}


SAME = {
    "white space": CONFIG.replace("><", ">\n\t  <"),
    "a comment": CONFIG.replace("<View>", "<View><!-- cells -->"),
    "colors and hints": CONFIG.replace('value="RBC"', 'value="RBC" background="red" hint="r"'),
    "the order of labels": CONFIG.replace("RBC", "#").replace("WBC", "RBC").replace("#", "WBC"),
    "a label without a class": CONFIG.replace('<Label value="WBC"/>', '<Label value="WBC"/><Label value="Dust"/>'),
    "another control": CONFIG.replace(
        "</View>", '<Choices name="c" toName="image"><Choice value="good"/></Choices></View>'
    ),
    "the default threshold, written down": CONFIG.replace('toName="image"', 'toName="image" score_threshold="0.25"'),
}


@pytest.mark.parametrize("label_config", SAME.values(), ids=SAME.keys())
def test_what_predictions_do_not_depend_on_leaves_the_version(client: FlaskClient, label_config: str) -> None:
    assert label_config != CONFIG
    assert version(client, label_config) == version(client)


DIFFERENT = {
    "a label less": WBC_ONLY,
    "a label of another name": CONFIG.replace('value="RBC"', 'value="red" predicted_values="RBC"'),
    "a control's threshold": CONFIG.replace('toName="image"', 'toName="image" model_score_threshold="0.3"'),
    "a label's threshold": CONFIG.replace('value="WBC"', 'value="WBC" model_score_threshold="0.3"'),
    "the control's name": CONFIG.replace('name="label"', 'name="boxes"'),
    "the data key": CONFIG.replace("$image", "$photo"),
    "labels that changed places": CONFIG.replace('"RBC"', '"RBC" predicted_values="WBC"').replace(
        '<Label value="WBC"/>', '<Label value="WBC" predicted_values="RBC"/>'
    ),
}


@pytest.mark.parametrize("label_config", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_predictions_depend_on_changes_the_version(client: FlaskClient, label_config: str) -> None:
    assert version(client, label_config) != version(client)


@pytest.mark.parametrize(
    "changed",
    [
        {"model_score_threshold": 0.3},
        {"model_iou_threshold": 0.5},
        {"model_max_detections": 100},
        {"decode": "fast"},
    ],
)
def test_settings_that_predictions_depend_on_change_the_version(
    client: FlaskClient, predictor: Predictor, changed: dict[str, Any]
) -> None:
    assert version(other_app(predictor, **changed)) != version(client)


@pytest.mark.parametrize(
    "changed", [{"batch_size": 3}, {"predict_deadline_s": 5.0}, {"threads": 16}, {"max_models": 1}]
)
def test_settings_that_predictions_do_not_depend_on_leave_the_version(
    client: FlaskClient, predictor: Predictor, changed: dict[str, Any]
) -> None:
    assert version(other_app(predictor, **changed)) == version(client)


def version_of(**overrides: Any) -> str:
    predictor = Predictor(load_settings(**{"device": "cpu", "engine": "torch", **overrides}))
    try:
        return predictor.plan(CONFIG, wait_s=60).model_version
    finally:
        predictor.close()


def test_the_version_follows_the_weights_and_the_image_size(
    client: FlaskClient, bccd_weights: Path, tmp_path: Path
) -> None:
    here = {"model_root": bccd_weights.parent, "model_name": bccd_weights.name}
    assert version_of(**here) == version(client)
    assert version_of(**here, model_image_size=320) == version(client)  # their own
    assert version_of(**here, model_image_size=640) != version(client)
    content = bccd_weights.read_bytes()
    (tmp_path / bccd_weights.name).write_bytes(content)
    assert version_of(model_root=tmp_path, model_name=bccd_weights.name) == version(client)
    (tmp_path / f"blood-{bccd_weights.name}").write_bytes(content)
    renamed = version_of(model_root=tmp_path, model_name=f"blood-{bccd_weights.name}")
    assert version(client) not in renamed  # for Label Studio would find the one in the other
    (tmp_path / bccd_weights.name).write_bytes(content + b"\0")  # a zip archive may have something at its end
    assert version_of(model_root=tmp_path, model_name=bccd_weights.name) != version(client)


@pytest.mark.parametrize("engine", ["auto", "torch", "onnx", "openvino"])
def test_the_version_is_the_same_in_every_runtime(
    client: FlaskClient, bccd_weights: Path, model_dir: Path, engine: str
) -> None:
    here = {"model_root": bccd_weights.parent, "model_name": bccd_weights.name, "model_dir": model_dir}
    assert version_of(**here, engine=engine) == version(client)


def test_a_new_release_does_not_have_everything_predicted_anew(client: FlaskClient) -> None:
    """Where it predicts the same, as the first release did by this version."""
    assert version(client) == "bccd-d0c466ba"


def test_versions_are_those_of_the_setups(predictor: Predictor) -> None:
    client = other_app(predictor)
    assert client.get("/versions").get_json() == {"versions": []}
    first, second = version(client), version(client, WBC_ONLY)
    assert set(client.get("/versions").get_json()["versions"]) <= {first, second}
    assert second in client.get("/versions").get_json()["versions"]
    setup(client, CONFIG, project="other")
    assert sorted(client.get("/versions").get_json()["versions"]) == sorted([first, second])


def test_while_weights_are_read(predictor: Predictor, bccd_weights: Path, photo: str) -> None:
    gate = threading.Event()

    def load(name: str) -> Any:
        assert gate.wait(WAIT_S)
        return Engine(bccd_weights, device="cpu")

    loading = Predictor(predictor.settings, fake_catalog(load))
    client = create_app(ModelClass.of(YoloBackend), loading).test_client()
    assert "try again" in assert_one_line_error(setup(client), 503)
    assert "try again" in assert_one_line_error(client.get("/health"), 503)
    assert loading.predict([task(photo)] * 2, CONFIG, deadline_s=0.05) == [[], []]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(loading.predict, [task(photo)], CONFIG)
        gate.set()
        (prediction,) = waiting.result(WAIT_S)
    assert prediction["result"]
    assert prediction["model_version"] == version(client)
    loading.close()


# Places: threads that wait in /predict never use up the server's last ones


def test_requests_that_find_no_place_are_answered_at_once(predictor: Predictor) -> None:
    gate, waiting = threading.Event(), threading.Semaphore(0)

    class Slow(YoloBackend):
        def predict(self, tasks: Any, context: Any = None, **kwargs: Any) -> Any:
            waiting.release()
            assert gate.wait(WAIT_S)
            return [{"result": []} for _ in tasks]

    client = other_app(predictor, Slow, threads=4)
    app = client.application

    def ask(count: int, **more: Any) -> list[Any]:
        return predict(app.test_client(), [task("x")] * count, **more)

    with ThreadPoolExecutor(4) as threads:
        try:
            bulk = threads.submit(ask, 2)
            assert waiting.acquire(timeout=WAIT_S)
            assert ask(3) == [[], [], []]  # the place that is left is for a person
            person = threads.submit(ask, 1)
            assert waiting.acquire(timeout=WAIT_S)
            assert ask(1) == [[]]
            assert ask(1, params={"context": {"result": [1]}}) == [{"result": []}]
            assert client.get("/health").status_code == 200
            assert setup(client).status_code == 200
        finally:
            gate.set()
        assert bulk.result(WAIT_S) == [{"result": []}] * 2
        assert person.result(WAIT_S) == [{"result": []}]
    assert ask(2) == [{"result": []}] * 2


# The webhook


class Trainer(YoloBackend):
    """Keeps a record of what it is given, and trains until it is told to stop."""

    gate = threading.Event()
    lock = threading.Lock()
    begun: list[tuple[str, str]]
    running: list[str]
    most_at_once: dict[str, int]
    done = threading.Semaphore(0)

    @classmethod
    def reset(cls) -> None:
        cls.gate, cls.done = threading.Event(), threading.Semaphore(0)
        cls.begun, cls.running, cls.most_at_once = [], [], {}

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        project = str(self.project_id)
        with self.lock:
            self.begun.append((project, event))
            self.running.append(project)
            self.most_at_once[project] = max(self.most_at_once.get(project, 0), self.running.count(project))
        try:
            assert self.gate.wait(WAIT_S)
            if data.get("fail"):
                raise RuntimeError("training failed")
        finally:
            with self.lock:
                self.running.remove(project)
            self.done.release()


@pytest.fixture
def trainer(predictor: Predictor) -> Iterator[FlaskClient]:
    Trainer.reset()
    yield other_app(predictor, Trainer)
    Trainer.gate.set()


def notify(client: FlaskClient, action: str, project: Any, **more: Any) -> None:
    response = client.post("/webhook", json={"action": action, "project": project, **more})
    assert response.status_code == 200


def test_the_webhook_answers_while_fit_runs_and_a_project_trains_once_at_a_time(trainer: FlaskClient) -> None:
    for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "START_TRAINING"):
        notify(trainer, action, {"id": 1, "label_config": CONFIG})
    notify(trainer, "START_TRAINING", {"id": 2})
    assert trainer.get("/health").status_code == 200
    Trainer.gate.set()
    for _ in range(4):
        assert Trainer.done.acquire(timeout=WAIT_S)
    assert [event for project, event in Trainer.begun if project == "1"] == [
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "START_TRAINING",
    ]
    assert Trainer.most_at_once == {"1": 1, "2": 1}


def test_a_training_that_fails_does_not_stop_the_next(trainer: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    Trainer.gate.set()
    notify(trainer, "START_TRAINING", {"id": 3}, fail=True)
    notify(trainer, "START_TRAINING", {"id": 3})
    for _ in range(2):
        assert Trainer.done.acquire(timeout=WAIT_S)
    assert Trainer.begun == [("3", "START_TRAINING")] * 2
    assert "training failed" in caplog.text


@pytest.mark.parametrize("project", [None, 5, "5", [], {}, {"id": None}, {"id": 5, "label_config": "<View>"}])
def test_a_webhook_of_any_shape_is_accepted(trainer: FlaskClient, project: Any) -> None:
    Trainer.gate.set()
    notify(trainer, "START_TRAINING", project)


def training(client: FlaskClient) -> dict[str, Any]:
    told = client.get("/").get_json()["training"]
    assert isinstance(told, dict)
    return told


def page_of(client: FlaskClient) -> str:
    return " ".join(re.sub("<[^>]*>", " ", client.get("/", headers={"Accept": "text/html"}).text).split())


class Inherits(YoloBackend):
    """As the one in model.py: nobody has overridden its `fit`."""


def test_start_training_where_nothing_trains_is_refused_and_told(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    client = other_app(predictor, Inherits)
    fact = "Start Training: the class Inherits doesn't train; set TRAINING=on or override fit, see docs/training.md"
    assert training(client) == {"trains": False, "remark": fact, "told": []}
    assert fact in html.unescape(page_of(client))
    caplog.clear()
    with caplog.at_level("INFO"):
        for project in (3, 3, 4):
            response = client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": project}})
            told = assert_one_line_error(response, 409)
            assert told == (
                "Nothing is trained: the class Inherits doesn't train. Set TRAINING=on or override its fit, see "
                "docs/training.md, and restart the backend"
            )
        for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "TASKS_DELETED", "PROJECT_UPDATED"):
            response = client.post("/webhook", json={"action": action, "project": {"id": 3, "label_config": CONFIG}})
            assert response.status_code == 200
            assert response.get_json() == {"status": "ignored", "reason": told}
    # What a thread of the test before this one still says is not of these projects.
    said = [message for message in caplog.messages if message.startswith(("Project 3", "Project 4"))]
    assert said == [f"Project 3: START_TRAINING is ignored: {told}"]
    assert [(each["project"], each["state"], each["reason"]) for each in training(client)["told"]] == [
        ("4", "ignored", told),
        ("3", "ignored", told),
    ]
    assert re.search(r"Start Training of Project 3 , asked 0 s ago , did nothing\.", page_of(client))


def test_while_the_class_is_imported_start_training_waits_for_it(predictor: Predictor) -> None:
    is_imported = threading.Event()

    def load() -> Any:
        assert is_imported.wait(WAIT_S)
        return Inherits

    client = create_app(ModelClass("Inherits", load), predictor).test_client()
    notify(client, "START_TRAINING", {"id": 5})
    assert training(client)["trains"] is None
    assert [each["state"] for each in training(client)["told"]] in (["waiting"], ["running"])
    is_imported.set()
    wait_for(lambda: [each["state"] for each in training(client)["told"]] == ["ignored"], WAIT_S)
    assert client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 5}}).status_code == 409


def test_a_class_that_can_not_be_imported_says_so_at_start_training_alone(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> Any:
        raise NameError("torhc")

    client = create_app(ModelClass("Mine", load), predictor).test_client()
    wait_for(lambda: client.get("/health").status_code == 503, WAIT_S)
    caplog.clear()
    response = client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 5}})
    assert (response.status_code, response.get_json()["status"]) == (200, "ignored")
    assert caplog.records == []
    response = client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 5}})
    assert assert_one_line_error(response, 500) == (
        "The class Mine can't be imported (NameError): see the backend's log"
    )


def test_the_page_says_how_a_training_ended(trainer: FlaskClient) -> None:
    Trainer.gate.set()
    notify(trainer, "START_TRAINING", {"id": 6}, fail=True)
    wait_for(lambda: [each["state"] for each in training(trainer)["told"]] == ["failed"], WAIT_S)
    assert "RuntimeError: training failed . The backend's log has more." in html.unescape(page_of(trainer))
    assert "Traceback" not in page_of(trainer)
    notify(trainer, "START_TRAINING", {"id": 6})
    wait_for(lambda: [each["state"] for each in training(trainer)["told"]] == ["done"], WAIT_S)
    assert re.search(r"Start Training of Project 6 , asked \d s ago , ended well after \d s\.", page_of(trainer))
    assert training(trainer)["remark"] is None


@pytest.mark.parametrize("body", [{}, {"action": None}, {"action": ""}, {"action": 5}, {"project": {"id": 1}}])
def test_a_webhook_without_an_action_is_told(trainer: FlaskClient, body: dict[str, Any]) -> None:
    assert_one_line_error(trainer.post("/webhook", json=body), 400)
    assert Trainer.begun == []
