"""The same work by a Ray cluster: two real nodes on this machine."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.harness.http_server import StartServer, reply
from tests.harness.studio_client import BCCD_CONFIG, boxes
from yolo_backend.failures import Failure
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.protocol import Task
from yolo_backend.serving import ray_workers
from yolo_backend.serving.ray_workers import ClusterError, stream_on_ray
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings, load_settings

pytestmark = [
    pytest.mark.timeout(600),
    # Ray's own, of which it has many.
    pytest.mark.filterwarnings("default"),
]


# A process of its own, as a command is one: Ray ends a driver at once, and without a word, when it loses its node, and
# what it knows of one cluster confuses it about the next.
_IN_A_PROCESS = """
import pickle, sys
from pathlib import Path
from yolo_backend.serving.ray_workers import ClusterError, stream_on_ray
tasks, plan, settings, address = pickle.loads(Path(sys.argv[1]).read_bytes())
pairs = []
try:
    for pair in stream_on_ray(tasks, plan, "1", settings, address=address):
        pairs.append(pair)
        print("ROW", flush=True)
except ClusterError as error:
    print(error, flush=True)
Path(sys.argv[2]).write_bytes(pickle.dumps(pairs))
"""


@pytest.fixture
def settings(clean_environment: pytest.MonkeyPatch, bccd_environment: dict[str, str]) -> Settings:
    for name, value in {**bccd_environment, "ALLOWED_IMAGE_HOSTS": "127.0.0.1", "MODEL_IMAGE_SIZE": "96"}.items():
        clean_environment.setenv(name, value)
    return load_settings()


@pytest.fixture
def plan(settings: Settings) -> ProjectPlan:
    predictor = Predictor(settings)
    plan = predictor.plan(BCCD_CONFIG, wait_s=None)
    predictor.close()
    return plan


@pytest.fixture
def photographs(serve: StartServer, bccd_files: list[Path]) -> str:
    """A server of four photographs, at any address that ends in their number."""
    contents = [file.read_bytes() for file in bccd_files[:4]]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        number = handler.path.rpartition("/")[2]
        reply(contents[int(number) % 4] if number.isdigit() else b"", 200 if number.isdigit() else 404)(handler)

    return serve(answer).url


def tasks_at(url: str, count: int) -> list[Task]:
    return [{"id": number, "data": {"image": f"{url}/{number}"}} for number in range(1, count + 1)]


@pytest.mark.proof
def test_a_node_killed_half_way_loses_nothing(
    settings: Settings, plan: ProjectPlan, photographs: str, ray_cluster: Any, tmp_path: Path
) -> None:
    tasks = tasks_at(photographs, 400)
    tasks[5] = {"id": 6, "data": {"image": f"{photographs}/none"}}
    asked, found = tmp_path / "asked", tmp_path / "found"
    asked.write_bytes(pickle.dumps((tasks, plan, settings, ray_cluster.address)))
    command = [sys.executable, "-c", _IN_A_PROCESS, str(asked), str(found)]
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        lines = []  # Ray's own stand between
        for line in process.stdout:
            lines.append(line)
            if lines.count("ROW\n") == 64 and ray_cluster.worker_nodes:
                (other,) = ray_cluster.worker_nodes
                ray_cluster.remove_node(other, allow_graceful=False)
    assert process.returncode == 0, (tmp_path / "stderr").read_text()
    pairs = pickle.loads(found.read_bytes())
    told = Counter(task["id"] for task, _ in pairs)
    outcomes = {task["id"]: outcome for task, outcome in pairs}

    assert told == Counter(range(1, 401)), lines
    failure = outcomes.pop(6)
    assert isinstance(failure, Failure)
    assert failure.task_id == 6
    assert "404" in failure.reason
    predictor = Predictor(settings)
    for task, here in predictor.stream(tasks_at(photographs, 8), predictor.plan(BCCD_CONFIG, wait_s=None), "1"):
        there = outcomes.get(task["id"])
        if there is not None:
            assert isinstance(here, dict)
            assert isinstance(there, dict)
            assert boxes(there) == boxes(here)
            assert there["model_version"] == plan.model_version
    predictor.close()


@pytest.mark.proof
@pytest.mark.parametrize("deaths", [2, 7])  # the second: more in a row than Ray itself lets
def test_a_worker_that_dies_while_it_starts_is_replaced(
    settings: Settings,
    plan: ProjectPlan,
    photographs: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    deaths: int,
) -> None:
    """As one on a node that is killed just then, or that the cluster doesn't know to be dead yet."""
    started = tmp_path / "started"

    class DiesAtFirst(ray_workers._Worker):
        def __init__(self, *args: Any) -> None:
            starts = started.read_text() if started.exists() else ""
            started.write_text(starts + "x")
            if len(starts) < deaths:
                raise RuntimeError("the node is gone")
            super().__init__(*args)

    monkeypatch.setattr(ray_workers, "_Worker", DiesAtFirst)
    monkeypatch.setattr(ray_workers, "_TRY_AGAIN_AFTER_S", 0.1)
    done = list(stream_on_ray(tasks_at(photographs, 40), plan, "1", settings))
    assert started.read_text() == "x" * (deaths + 1)
    assert sorted(task["id"] for task, _ in done) == list(range(1, 41))
    assert all(isinstance(outcome, dict) for _, outcome in done)


@pytest.mark.proof
def test_a_cluster_of_this_machine_alone(settings: Settings, plan: ProjectPlan, photographs: str) -> None:
    done = list(stream_on_ray(tasks_at(photographs, 40), plan, "1", settings))
    assert sorted(task["id"] for task, _ in done) == list(range(1, 41))
    assert all(isinstance(outcome, dict) for _, outcome in done)


@pytest.mark.proof  # a cluster of two nodes, and two programs
def test_a_node_with_other_weights_is_told(
    settings: Settings, plan: ProjectPlan, photographs: str, ray_cluster: Any, tmp_path: Path
) -> None:
    (served,) = plan.controls
    others = replace(served, weights=replace(served.weights, fingerprint="0" * 64))
    gone = replace(served, weights_name="gone.pt")
    for unlike, reason in (
        (others, r"bccd\.pt on the node .* are other weights than here"),
        (gone, r"On the node .*gone\.pt"),
    ):
        asked = (tasks_at(photographs, 2), replace(plan, controls=(unlike,)), settings, ray_cluster.address)
        (tmp_path / "asked").write_bytes(pickle.dumps(asked))
        done = subprocess.run(
            [sys.executable, "-c", _IN_A_PROCESS, str(tmp_path / "asked"), str(tmp_path / "found")],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert re.search(reason, done.stdout), done.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", r"No Ray cluster at 127\.0\.0\.1:1 \("),
        ("elsewhere", "elsewhere is no address of a Ray cluster"),
    ],
)
def test_no_cluster_there(settings: Settings, plan: ProjectPlan, address: str, reason: str) -> None:
    with pytest.raises(ClusterError, match=reason):
        list(stream_on_ray(tasks_at("http://images", 2), plan, "1", settings, address=address))


def test_ray_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from yolo_backend.serving.ray_workers import ClusterError, stream_on_ray\n"
        "try: list(stream_on_ray([], None, '1', None))\n"
        "except ClusterError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Ray isn't installed: pip install '.[ray]' -c constraints.txt, in the backend's folder\n"
