"""Retrieve Predictions on the real Label Studio, with the real backend."""

from __future__ import annotations

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from ultralytics import YOLO

from tests.harness.http_server import ServedFolder
from tests.harness.stack import BackendServer, LabelStudioServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, boxes, metric, uploaded_name
from yolo_backend.demo.evaluate import region_box_xyxy

ASKED = ('yolo_tasks_total{outcome="predicted"}', 'yolo_tasks_total{outcome="failed"}')


@pytest.fixture(scope="session")
def photographs(bccd_files: list[Path]) -> list[Path]:
    return bccd_files[:20]


def asked(backend: BackendServer) -> float:
    """How many tasks the backend was asked for so far."""
    return sum(metric(backend.url, line) for line in ASKED)


@pytest.mark.parametrize("fixture", ["backend", pytest.param("legacy_backend", marks=pytest.mark.proof)])
def test_uploads_carry_ultralytics_boxes_with_either_kind_of_token(
    fixture: str, request: pytest.FixtureRequest, client: StudioClient, photographs: list[Path], bccd_weights: Path
) -> None:
    server: BackendServer = request.getfixturevalue(fixture)
    project = client.create_project(f"uploads with {fixture}")
    client.upload(project, photographs[:6])
    assert client.connect(project, server.url)["state"] == "CO"

    client.retrieve_predictions(project)

    model = YOLO(bccd_weights)
    judge = LabelInterface(BCCD_CONFIG)
    paths = {path.name: path for path in photographs[:6]}
    for task in client.tasks(project):
        path = paths.pop(uploaded_name(task))
        assert task["data"]["image"].startswith("/data/upload/")
        (prediction,) = task["predictions"]
        stored = {key: prediction[key] for key in ("result", "score", "model_version")}
        assert judge.validate_prediction(stored, return_errors=True) == []
        own = model.predict(path, verbose=False)[0].boxes
        assert len(own) > 0
        np.testing.assert_allclose(
            [region_box_xyxy(region) for region in prediction["result"]], own.xyxy.numpy(), atol=0.01
        )
        np.testing.assert_allclose([region["score"] for region in prediction["result"]], own.conf.numpy(), atol=1e-4)
        labels = [region["value"]["rectanglelabels"][0] for region in prediction["result"]]
        assert labels == [model.names[int(number)] for number in own.cls]
        assert prediction["score"] == pytest.approx(float(own.conf.mean()), abs=1e-4)
    assert paths == {}


def test_every_kind_of_image_address_gives_the_same_boxes(
    backend: BackendServer, client: StudioClient, photographs: list[Path], local_files: Path, image_server: ServedFolder
) -> None:
    content = photographs[0].read_bytes()
    folder = local_files / "lab photos"
    folder.mkdir()
    (folder / "eins & zwei ü.jpg").write_bytes(content)
    (image_server.path / "plain.jpg").write_bytes(content)
    project = client.create_project("every kind of address")
    client.call(
        "POST",
        "/api/storages/localfiles",
        json={"project": project, "path": str(folder), "use_blob_urls": True, "title": "local"},
    )
    inline = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    addresses = ["/data/local-files/?d=lab photos/eins %26 zwei ü.jpg", f"{image_server.url}/plain.jpg", inline]
    client.upload(project, [photographs[0]])
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses])
    client.connect(project, backend.url)

    client.retrieve_predictions(project)

    predictions = list(client.predictions(project).values())
    assert [len(of_task) for of_task in predictions] == [1, 1, 1, 1]
    first = boxes(predictions[0][0])
    assert len(first) > 3
    for (prediction,) in predictions[1:]:
        np.testing.assert_allclose([box[1:] for box in boxes(prediction)], [box[1:] for box in first], atol=1e-4)


def test_an_image_in_a_bucket_comes_through_label_studio(
    backend: BackendServer, client: StudioClient, photographs: list[Path], image_server: ServedFolder
) -> None:
    (image_server.path / "bucket" / "blood").mkdir(parents=True)
    (image_server.path / "bucket" / "blood" / "größe 1.jpg").write_bytes(photographs[0].read_bytes())
    project = client.create_project("a bucket")
    storage = {
        "project": project,
        "bucket": "bucket",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "s3_endpoint": image_server.url,
        "region_name": "eu-central-1",
        "presign": True,
    }
    client.call("POST", "/api/storages/s3", json=storage)
    client.import_tasks(project, [{"data": {"image": "s3://bucket/blood/größe 1.jpg"}}])
    client.connect(project, backend.url)

    client.retrieve_predictions(project)

    ((prediction,),) = client.predictions(project).values()
    assert len(prediction["result"]) > 3


def test_label_studio_below_a_path(
    prefixed_label_studio: str,
    client: StudioClient,
    personal_access_token: str,
    model_environment: dict[str, str],
    photographs: list[Path],
    tmp_path: Path,
) -> None:
    project = client.create_project("below a path")
    client.upload(project, photographs[:2])
    environment = model_environment | {
        "LABEL_STUDIO_URL": prefixed_label_studio,
        "LABEL_STUDIO_API_KEY": personal_access_token,
    }
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as server:
        wait_until_ready(server.url)
        client.connect(project, server.url)
        client.retrieve_predictions(project)

    assert [len(of_task) for of_task in client.predictions(project).values()] == [1, 1]


def test_a_phone_photograph_lies_as_the_page_shows_it(
    backend: BackendServer, client: StudioClient, photographs: list[Path], tmp_path: Path
) -> None:
    with Image.open(photographs[1]) as opened:
        upright = opened.convert("RGB").crop((0, 0, 480, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    # Lossless, so that both files hold the same pixels.
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    jpeg = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(jpeg, "JPEG", quality=95, exif=exif)
    (tmp_path / "turned.jpg").write_bytes(jpeg.getvalue())
    project = client.create_project("a phone photograph")
    client.upload(project, [tmp_path / name for name in ("upright.png", "turned.png", "turned.jpg")])
    client.connect(project, backend.url)

    client.retrieve_predictions(project)

    predictions = {uploaded_name(task): task["predictions"][0] for task in client.tasks(project)}
    straight, turned, phone = (predictions[name] for name in ("upright.png", "turned.png", "turned.jpg"))
    assert len(straight["result"]) > 2
    np.testing.assert_allclose([box[1:] for box in boxes(turned)], [box[1:] for box in boxes(straight)], atol=1e-4)
    for region in phone["result"]:
        assert (region["original_width"], region["original_height"]) == (480, 400)


def test_two_projects_with_different_labels_at_once(
    backend: BackendServer, client: StudioClient, photographs: list[Path]
) -> None:
    german = BCCD_CONFIG.replace('value="RBC"', 'value="rot" predicted_values="RBC"').replace(
        'value="WBC"', 'value="weiss" predicted_values="WBC"'
    )
    projects = [client.create_project("english"), client.create_project("german", german)]
    for project in projects:
        client.upload(project, photographs[:8])
        client.connect(project, backend.url)

    with ThreadPoolExecutor() as pool:
        list(pool.map(client.retrieve_predictions, projects))

    english, translated = (
        {uploaded_name(task): task["predictions"] for task in client.tasks(project)} for project in projects
    )
    for name, (first,) in english.items():
        (second,) = translated[name]
        assert {box[0] for box in boxes(first)} <= {"RBC", "WBC", "Platelets"}
        german_of = {"RBC": "rot", "WBC": "weiss", "Platelets": "Platelets"}
        assert [german_of[box[0]] for box in boxes(first)] == [box[0] for box in boxes(second)]
        np.testing.assert_allclose([box[1:] for box in boxes(first)], [box[1:] for box in boxes(second)], atol=1e-3)
        assert first["model_version"] != second["model_version"]


def test_a_second_click_asks_for_nothing_and_a_new_threshold_for_everything(
    backend: BackendServer, client: StudioClient, photographs: list[Path]
) -> None:
    project = client.create_project("clicks")
    client.upload(project, photographs[:5])
    client.connect(project, backend.url)
    before = asked(backend)
    client.retrieve_predictions(project)
    assert asked(backend) - before == 5

    client.retrieve_predictions(project)
    assert asked(backend) - before == 5

    client.set_label_config(project, BCCD_CONFIG.replace('value="RBC"', 'value="RBC" model_score_threshold="0.9"'))
    client.retrieve_predictions(project)
    assert asked(backend) - before == 10
    for of_task in client.predictions(project).values():
        old, new = sorted(of_task, key=lambda prediction: int(prediction["id"]))
        assert old["model_version"] != new["model_version"]
        kept = [box for box in boxes(old) if box[0] != "RBC" or box[-1] > 0.9]
        assert [box[0] for box in boxes(new)] == [box[0] for box in kept]


def test_one_broken_image_among_twenty_is_asked_for_again(
    backend: BackendServer, client: StudioClient, photographs: list[Path], image_server: ServedFolder
) -> None:
    for number, path in enumerate(photographs[:20]):
        content = path.read_bytes()
        (image_server.path / f"{number}.jpg").write_bytes(content[:3000] if number == 7 else content)
    project = client.create_project("one is broken")
    client.import_tasks(project, [{"data": {"image": f"{image_server.url}/{number}.jpg"}} for number in range(20)])
    client.connect(project, backend.url)

    client.retrieve_predictions(project)
    counts = [len(of_task) for of_task in client.predictions(project).values()]
    assert counts == [1] * 7 + [0] + [1] * 12

    (image_server.path / "7.jpg").write_bytes(photographs[7].read_bytes())
    before = asked(backend)
    client.retrieve_predictions(project)
    assert asked(backend) - before == 1
    assert [len(of_task) for of_task in client.predictions(project).values()] == [1] * 20


def test_a_smart_tool_gets_the_box_that_was_drawn(
    backend: BackendServer, client: StudioClient, photographs: list[Path]
) -> None:
    project = client.create_project("smart tool")
    client.upload(project, photographs[:1])
    connection = client.connect(project, backend.url)
    client.retrieve_predictions(project)
    (task,) = client.tasks(project)
    region = task["predictions"][0]["result"][0]
    drawn = {key: region[key] for key in region if key != "score"} | {"id": "drawn", "origin": "manual"}
    body = {"task": task["id"], "context": {"result": [drawn]}}

    answer = client.call("POST", f"/api/ml/{connection['id']}/interactive-annotating", json=body)

    assert boxes(answer["data"]) == boxes({"result": [region]})


def test_the_person_reads_what_is_wrong_with_the_labels(backend: BackendServer, client: StudioClient) -> None:
    project = client.create_project(
        "no partner", BCCD_CONFIG.replace("RBC", "A").replace("WBC", "B").replace("Platelets", "C")
    )

    with pytest.raises(requests.HTTPError, match=r"None of the labels A, B, C is a class of bccd\.pt"):
        client.connect(project, backend.url)


def test_the_person_reads_that_legacy_tokens_are_refused(
    label_studio: LabelStudioServer, client: StudioClient, model_environment: dict[str, str], tmp_path: Path
) -> None:
    project = client.create_project("legacy tokens off")
    environment = model_environment | {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": label_studio.legacy_token,
    }
    settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": False}
    client.call("POST", "/api/jwt/settings", json=settings)
    try:
        with backend_server(pick_port(0), environment, tmp_path / "backend.log") as server:
            wait_until_ready(server.url)
            with pytest.raises(requests.HTTPError, match="legacy tokens are disabled, use a Personal Access Token"):
                client.connect(project, server.url)
    finally:
        client.call("POST", "/api/jwt/settings", json=settings | {"legacy_api_tokens_enabled": True})


@pytest.mark.proof
@pytest.mark.parametrize("deadline_s", ["90", "1"])
def test_a_click_in_the_first_second_though_nothing_is_exported(
    label_studio: LabelStudioServer,
    client: StudioClient,
    command_environment: dict[str, str],
    photographs: list[Path],
    tmp_path: Path,
    deadline_s: str,
) -> None:
    """The backend is up when its weights are read. The answer waits for the export, or what isn't ready is pushed."""
    project = client.create_project(f"first second, {deadline_s} s")
    client.upload(project, photographs)
    environment = command_environment | {
        "MODEL_DIR": str(tmp_path / "model_dir"),
        "PREDICT_DEADLINE_SECONDS": deadline_s,
    }
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as server:
        began_at = time.monotonic()
        assert client.connect(project, server.url)["state"] == "CO"
        client.retrieve_predictions(project)
        while client.total_predictions(project) < len(photographs):
            assert time.monotonic() - began_at < 120
            time.sleep(0.5)
        client.retrieve_predictions(project)
        stored = client.predictions(project)
    assert [len(stored[task["id"]]) for task in client.tasks(project)] == [1] * len(photographs)
    assert "exporting to onnx" in (tmp_path / "backend.log").read_text()
