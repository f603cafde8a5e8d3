"""Uploads that the backend reads where Label Studio keeps them: Label Studio isn't asked for those of the project."""

from __future__ import annotations

from pathlib import Path

import requests

from tests.harness.stack import BackendServer, LabelStudioServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient, boxes


def test_uploads_are_read_from_label_studios_disk_and_those_of_others_are_asked_for(
    label_studio: LabelStudioServer,
    client: StudioClient,
    personal_access_token: str,
    model_environment: dict[str, str],
    bccd_files: list[Path],
    backend: BackendServer,
    tmp_path: Path,
) -> None:
    environment = model_environment | {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": personal_access_token,
        "LABEL_STUDIO_MEDIA_ROOT": str(label_studio.media_root),
    }
    mine, theirs, over_http = (client.create_project(f"uploads {name}") for name in ("mine", "theirs", "over HTTP"))
    client.upload(mine, bccd_files[:3])
    addresses = [task["data"]["image"] for task in client.tasks(mine)]
    for project in (theirs, over_http):
        client.import_tasks(project, [{"data": {"image": address}} for address in addresses])

    def asked() -> set[str]:
        """Which of the uploads Label Studio has served."""
        log = label_studio.log.read_text()
        return {address for address in addresses if f"GET {address} HTTP" in log}

    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as from_disk:
        wait_until_ready(from_disk.url)
        assert f"Uploads are read from {label_studio.media_root}\n" in from_disk.log.read_text()
        assert requests.get(from_disk.url, timeout=10).json()["uploads"] is None
        client.connect(mine, from_disk.url)
        client.retrieve_predictions(mine)
        assert asked() == set()
        predicted = client.predictions(mine)
        client.connect(theirs, from_disk.url)
        client.retrieve_predictions(theirs)
        assert asked() == set(addresses)
    client.connect(over_http, backend.url)
    client.retrieve_predictions(over_http)

    expected = [boxes(prediction) for (prediction,) in client.predictions(over_http).values()]
    assert all(len(each) > 3 for each in expected)
    for found in (predicted, client.predictions(theirs)):
        assert [boxes(prediction) for (prediction,) in found.values()] == expected
