"""A Label Studio whose address in a browser, LABEL_STUDIO_HOST, isn't the one that the backend reaches."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.command import run_command
from tests.harness.http_server import ServedFolder
from tests.harness.stack import (
    BackendServer,
    LabelStudioServer,
    backend_server,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient

pytestmark = pytest.mark.proof  # it has a Label Studio of its own

OUTSIDE = "https://localhost:18443/label-studio"  # where nobody is, so that nothing can come from there


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, bccd_files: list[Path]) -> Path:
    """Label Studio's folder of Local Files, with three photographs in `host`."""
    root = tmp_path_factory.mktemp("outside-files")
    (root / "host").mkdir()
    for number, path in enumerate(bccd_files[:3]):
        (root / "host" / f"h {number}#.jpg").write_bytes(path.read_bytes())
    return root


@pytest.fixture(scope="module")
def outside_label_studio(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    environment = {
        "LABEL_STUDIO_HOST": OUTSIDE,
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(files),
    }
    folder = tmp_path_factory.mktemp("outside") / "label-studio"
    with label_studio_server(folder, pick_port(0), legacy_tokens=True, environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def outside_client(outside_label_studio: LabelStudioServer) -> StudioClient:
    return StudioClient(outside_label_studio.url, outside_label_studio.legacy_token)


@pytest.fixture(scope="module")
def outside_environment(outside_label_studio: LabelStudioServer, model_environment: dict[str, str]) -> dict[str, str]:
    """The settings of a backend or a command, which name no address but the one that is reached."""
    return {
        **model_environment,
        "LABEL_STUDIO_URL": outside_label_studio.url,
        "LABEL_STUDIO_API_KEY": outside_label_studio.legacy_token,
    }


@pytest.fixture(scope="module")
def outside_backend(
    outside_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackendServer]:
    log = tmp_path_factory.mktemp("outside-backend") / "backend.log"
    with backend_server(pick_port(0), outside_environment, log) as server:
        wait_until_ready(server.url)
        yield server


@pytest.fixture(scope="module")
def synced(
    outside_client: StudioClient,
    outside_backend: BackendServer,
    files: Path,
    bccd_files: list[Path],
    image_server: ServedFolder,
) -> int:
    """A connected project: a synced Local Files storage, an upload, and a bucket's image by two addresses."""
    project = outside_client.create_project("outside")
    outside_client.connect(project, outside_backend.url)
    folder = {"project": project, "path": str(files / "host"), "use_blob_urls": True}
    storage = outside_client.call("POST", "/api/storages/localfiles", json=folder)
    outside_client.call("POST", f"/api/storages/localfiles/{storage['id']}/sync")
    outside_client.upload(project, bccd_files[3:4])
    (image_server.path / "outside").mkdir()
    (image_server.path / "outside" / "x.jpg").write_bytes(bccd_files[4].read_bytes())
    bucket = {
        "project": project,
        "bucket": "outside",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "s3_endpoint": image_server.url,
        "region_name": "eu-central-1",
        "presign": True,
    }
    outside_client.call("POST", "/api/storages/s3", json=bucket)
    task = outside_client.tasks(project)[0]["id"]
    uri = base64.urlsafe_b64encode(b"s3://outside/x.jpg").decode()
    addresses = [f"{OUTSIDE}/tasks/{task}/resolve/?fileuri={uri}", "s3://outside/x.jpg"]
    outside_client.import_tasks(project, [{"data": {"image": address}} for address in addresses])
    return project


def test_a_sync_writes_the_address_outside_and_the_files_are_predicted(
    outside_client: StudioClient, outside_backend: BackendServer, synced: int
) -> None:
    addresses = [next(iter(task["data"].values())) for task in outside_client.tasks(synced)]
    assert [address for address in addresses if address.startswith(OUTSIDE + "/data/local-files/?d=host/h%20")]
    assert [address for address in addresses if address.startswith("/label-studio/data/upload/")]
    outside_client.retrieve_predictions(synced)
    predictions = outside_client.predictions(synced)
    assert [len(stored) for stored in predictions.values()] == [1] * 6, outside_backend.log.read_text()
    assert all(prediction["result"] for (prediction,) in predictions.values())


def test_a_command_finds_them_too_without_any_setup(
    synced: int, outside_environment: dict[str, str], tmp_path: Path
) -> None:
    done = run_command("check", "--project", str(synced), "--json", environment=outside_environment, cwd=tmp_path)
    images = [finding for finding in json.loads(done.stdout) if finding["check"] == "images"]
    assert {finding["state"] for finding in images} == {"ok"}, images
    assert len(images) == 3


def test_each_odd_address_has_its_sentence(outside_client: StudioClient, outside_backend: BackendServer) -> None:
    sentences = {
        "C:\\data\\media\\a.jpg": "it is a path of a Windows disk",
        "/data/local-files/?d=sub%5Cplain.jpg": "it has a Windows path after ?d=",
        "/data/local-files/?d=c:/photos/IMG_0001.jpg": "it has a Windows path after ?d=",
        "/data/local-files/?d=host/missing.jpg": "Label Studio serves no such file",
        "/srv/datasets/test/1.jpg": "Label Studio has nothing at this path; if it is one of a disk",
        "plain.jpg": "the task's value is neither an address nor a path of Label Studio",
        "azure-blob://c/ü #1.jpg": " has no such image (404)",
        "/data/upload/1/a.jpg,/data/upload/1/b.jpg": "it holds several addresses",
        "/data/upload/1/0123abcd-gone.jpg": "Label Studio has no such upload",
        "https://127.0.0.1:9/data/upload/1/a.jpg": f"ours is {OUTSIDE}",
    }
    project = outside_client.create_project("odd addresses")
    outside_client.connect(project, outside_backend.url)
    outside_client.import_tasks(project, [{"data": {"image": value}} for value in sentences])
    outside_client.retrieve_predictions(project)
    assert outside_client.total_predictions(project) == 0
    lines = outside_backend.log.read_text().splitlines()
    for value, sentence in sentences.items():
        (line,) = [line for line in lines if f" is not predicted: {value}: " in line]
        assert sentence in line
