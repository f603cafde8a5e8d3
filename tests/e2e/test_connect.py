"""The one-shot of `docker compose up` against the real Label Studio."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from label_studio_sdk import LabelStudio

from yolo_backend.connect import class_names_of, ensure_connected, ensure_project, labeling_config_for
from yolo_backend.demo.stack import ROOT, BackendServer, LabelStudioServer


@pytest.fixture(scope="module")
def sdk(label_studio: LabelStudioServer) -> Iterator[LabelStudio]:
    with httpx.Client(timeout=60) as http:
        yield LabelStudio(base_url=label_studio.url, api_key=label_studio.legacy_token, httpx_client=http)


def test_a_project_is_made_and_connected_once(sdk: LabelStudio, backend: BackendServer) -> None:
    config = labeling_config_for(class_names_of(backend.url, timeout_s=60))

    first = ensure_project(sdk, "Made by connect", config)
    ensure_connected(sdk, first, backend.url, "YOLO")
    second = ensure_project(sdk, "Made by connect", "<View/>")
    ensure_connected(sdk, second, backend.url, "YOLO")

    assert second == first
    assert [(str(model.title), str(model.readable_state)) for model in sdk.ml.list(project=first)] == [
        ("YOLO", "Connected")
    ]
    project = sdk.projects.get(first)
    assert project.label_config.strip() == config.strip()
    assert project.show_collab_predictions


def test_the_command_ends_well_and_says_where_to_go(label_studio: LabelStudioServer, backend: BackendServer) -> None:
    environment = {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": label_studio.legacy_token,
        "BACKEND_URL": backend.url,
        "PROJECT_TITLE": "Made by the command",
        "LABEL_STUDIO_PUBLIC_URL": "http://studio.example",
    }
    completed = subprocess.run(
        [sys.executable, "-m", "yolo_backend.connect"],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith('Ready: project "Made by the command" at http://studio.example/projects/')
    assert len(completed.stdout.splitlines()) == 1
