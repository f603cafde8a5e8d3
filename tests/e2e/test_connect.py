"""The one-shot of `docker compose up` against the real Label Studio."""

from __future__ import annotations

from pathlib import Path

from tests.harness.command import run_process
from tests.harness.stack import BackendServer, LabelStudioServer
from yolo_backend.connecting.connect import class_names_of, ensure_connected, ensure_project, labeling_config_for
from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.label_studio.studio import Studio


def test_a_project_is_made_and_connected_once(label_studio: LabelStudioServer, backend: BackendServer) -> None:
    studio = Studio(label_studio.url, label_studio.personal_access_token())
    config = labeling_config_for(class_names_of(RemoteBackend(backend.url), timeout_s=60))

    first = ensure_project(studio, "Made by connect", config)
    ensure_connected(studio, first, backend.url, "YOLO")
    second = ensure_project(studio, "Made by connect", "<View/>")
    ensure_connected(studio, second, backend.url, "YOLO")

    assert second == first
    models = studio.call("GET", "/api/ml/", None, 60, query={"project": str(first)})
    assert [(model["title"], model["readable_state"]) for model in models] == [("YOLO", "Connected")]
    project = studio.call("GET", f"/api/projects/{first}/", None, 60)
    assert project["label_config"].strip() == config.strip()
    assert project["show_collab_predictions"]


def test_the_command_ends_well_and_says_where_to_go(
    label_studio: LabelStudioServer, backend: BackendServer, either_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {
        **either_environment,
        "BACKEND_URL": backend.url,
        "PROJECT_TITLE": "Made by the command",
        "LABEL_STUDIO_PUBLIC_URL": "http://studio.example",
    }

    done = run_process("connect", environment=environment, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('Ready: project "Made by the command" at http://studio.example/projects/')
    assert len(done.stdout.splitlines()) == 1


def test_a_token_that_is_not_accepted_is_told_in_one_line(
    backend: BackendServer, command_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = command_environment | {"LABEL_STUDIO_API_KEY": "0" * 40}

    done = run_process("connect", "--backend-url", backend.url, environment=environment, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "Label Studio refuses the token (401): check LABEL_STUDIO_API_KEY\n"
    assert done.stdout == ""
