"""What repeats, on the real Label Studio: the model is not asked twice for the same photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.harness.stack import BackendServer, LabelStudioServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, boxes, metric, uploaded_name

COUNT = 4


def costs(backend: BackendServer) -> dict[str, float]:
    """What the backend has done so far: images through the model, and images from memory."""
    return {
        "detected": metric(backend.url, "yolo_batch_size_sum"),
        "remembered": metric(backend.url, "yolo_remembered_images_total"),
    }


def predicted(client: StudioClient, project: int) -> dict[str, Any]:
    """The newest prediction of each upload, by the name that the file had."""
    return {uploaded_name(task): max(task["predictions"], key=lambda one: one["id"]) for task in client.tasks(project)}


def test_uploads_are_detected_once(
    label_studio: LabelStudioServer,
    client: StudioClient,
    personal_access_token: str,
    model_environment: dict[str, str],
    bccd_files: list[Path],
    tmp_path: Path,
) -> None:
    photographs = bccd_files[:COUNT]
    environment = model_environment | {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": personal_access_token,
    }
    stricter = BCCD_CONFIG.replace("<RectangleLabels", '<RectangleLabels model_score_threshold="0.6"')
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as backend:
        wait_until_ready(backend.url)
        first, second = (client.create_project(title) for title in ("remembered", "remembered, too"))
        for project in (first, second):
            client.upload(project, photographs)
            client.connect(project, backend.url)

        client.retrieve_predictions(first)
        assert costs(backend) == {"detected": COUNT, "remembered": 0}
        before = predicted(client, first)
        client.retrieve_predictions(second)
        assert costs(backend) == {"detected": COUNT, "remembered": COUNT}
        again = predicted(client, second)
        client.set_label_config(first, stricter)
        client.retrieve_predictions(first)
        assert costs(backend) == {"detected": COUNT, "remembered": 2 * COUNT}
        fewer = predicted(client, first)

    assert set(before) == {path.name for path in photographs}
    for name, prediction in before.items():
        assert len(prediction["result"]) > 3
        assert boxes(again[name]) == boxes(prediction)
        expected = [box for box in boxes(prediction) if box[-1] > 0.6]
        np.testing.assert_array_equal([box[1:] for box in boxes(fewer[name])], [box[1:] for box in expected])
        assert fewer[name]["model_version"] != prediction["model_version"]
    assert sum(len(prediction["result"]) for prediction in fewer.values()) < sum(
        len(prediction["result"]) for prediction in before.values()
    )
