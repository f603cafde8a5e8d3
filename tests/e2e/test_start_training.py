"""Start Training, where nothing trains: Label Studio forgets our answer, so it stands on our page and in our log."""

from __future__ import annotations

from typing import Any

import requests

from tests.harness.stack import BackendServer
from tests.harness.studio_client import StudioClient


def training(backend: BackendServer) -> dict[str, Any]:
    return dict(requests.get(backend.url, timeout=10).json()["training"])


def test_start_training_stands_where_it_lasts(backend: BackendServer, client: StudioClient) -> None:
    project = client.create_project("nothing trains")
    connection = client.connect(project, backend.url)
    task = {"data": {"image": "http://127.0.0.1:1/x.jpg"}}
    client.import_tasks(project, [task])
    assert training(backend)["remark"] == (
        "Start Training: the class YoloBackend doesn't train; set TRAINING=on or override fit, see docs/training.md"
    )

    for _ in range(2):
        client.call("POST", f"/api/ml/{connection['id']}/train", json={})
    (stored,) = client.tasks(project)
    for _ in range(3):  # each of them is a webhook
        client.call("POST", f"/api/tasks/{stored['id']}/annotations/", json={"result": []})

    told = [each for each in training(backend)["told"] if each["project"] == str(project)]
    assert [(each["event"], each["state"]) for each in told] == [("START_TRAINING", "ignored")]
    assert "Set TRAINING=on or override its fit, see docs/training.md" in told[0]["reason"]
    page = requests.get(backend.url, headers={"Accept": "text/html"}, timeout=10).text
    assert "did nothing." in page
    log = backend.log.read_text()
    assert log.count("is ignored") == 1
    assert "ANNOTATION_CREATED" not in log
