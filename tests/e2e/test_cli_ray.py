"""`--workers ray`: the commands by a Ray cluster of two real nodes, into a real Label Studio."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness.command import TIMEOUT_S, run_command, run_json, start_command
from tests.harness.http_server import ServedFolder
from tests.harness.studio_client import StudioClient, boxes

TASKS = 600

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own, of which it has many


@pytest.fixture
def photographs(image_server: ServedFolder, bccd_files: list[Path]) -> list[str]:
    """The addresses of four photographs."""
    addresses = []
    for number, file in enumerate(bccd_files[:4]):
        (image_server.path / f"ray-{number}.jpg").write_bytes(file.read_bytes())
        addresses.append(f"{image_server.url}/ray-{number}.jpg")
    return addresses


@pytest.mark.proof
def test_a_node_killed_half_way_loses_nothing(
    client: StudioClient,
    command_environment: dict[str, str],
    photographs: list[str],
    ray_cluster: Any,
    tmp_path: Path,
) -> None:
    environment = command_environment | {"MODEL_IMAGE_SIZE": "96"}
    project = client.create_project("by a cluster")
    client.import_tasks(project, [{"image": photographs[number % 4]} for number in range(TASKS)])
    arguments = ("prelabel", "--project", str(project), "--workers", "ray", "--address", ray_cluster.address, "--json")
    with start_command(*arguments, environment=environment, cwd=tmp_path) as process:
        try:
            wait_for_predictions(client, project, process)
            (other,) = ray_cluster.worker_nodes
            ray_cluster.remove_node(other, allow_graceful=False)
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    report = json.loads(stdout)
    assert (report["predicted"], report["failed"]) == (TASKS, [])

    by_task = client.predictions(project)
    assert len(by_task) == TASKS
    assert all(len(predictions) == 1 for predictions in by_task.values())
    # As without: the same version, so that nothing is left to do, and the same boxes.
    again = run_json("prelabel", "--project", str(project), environment=environment, cwd=tmp_path)
    assert (again["predicted"], again["already"]) == (0, TASKS)
    other_project = client.create_project("by threads")
    client.import_tasks(other_project, [{"image": address} for address in photographs])
    run_json("prelabel", "--project", str(other_project), environment=environment, cwd=tmp_path)
    by_threads = {task["data"]["image"]: boxes(task["predictions"][0]) for task in client.tasks(other_project)}
    for task in client.tasks(project)[:8]:
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == report["model_version"]
        assert boxes(prediction) == by_threads[task["data"]["image"]]


def wait_for_predictions(client: StudioClient, project: int, process: Any) -> None:
    """Wait until some are stored, but not all."""
    ends_at = time.monotonic() + TIMEOUT_S
    while not client.total_predictions(project):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < ends_at
        time.sleep(0.2)


@pytest.mark.proof
def test_sample_chooses_the_same_as_without(
    command_environment: dict[str, str], client: StudioClient, bccd_files: list[Path], tmp_path: Path
) -> None:
    """From a folder, whose images go along, on a cluster of this machine alone."""
    project = client.create_project("sampled by a cluster")
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in bccd_files[:12]:
        (folder / file.name).write_bytes(file.read_bytes())
    arguments = ("sample", str(folder), "--project", str(project), "--count", "5")
    threads, ray = (
        run_json(*arguments, *more, environment=command_environment, cwd=tmp_path)
        for more in ((), ("--workers", "ray"))
    )
    assert ray == threads
    assert len(ray["chosen"]) == 5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--workers", "ray", "--address", "127.0.0.1:1"),
            r"No Ray cluster at 127\.0\.0\.1:1 \(.*\): see `ray status`",
        ),
        (("--address", "ray-head:6379"), r"--address is that of a Ray cluster: add --workers ray"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    client: StudioClient, command_environment: dict[str, str], tmp_path: Path, options: tuple[str, ...], line: str
) -> None:
    project = client.create_project("no cluster")
    client.import_tasks(project, [{"image": "http://images/1.jpg"}])
    done = run_command("prelabel", "--project", str(project), *options, environment=command_environment, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(line + r".*\n", done.stderr)
