"""The same work on several machines: the nodes of a Ray cluster predict tasks."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from yolo_backend.cores import usable_cores
from yolo_backend.detection.weights import WeightsError
from yolo_backend.errors import UserError
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.messages import first_line
from yolo_backend.protocol import Prediction, Task, from_json, to_json
from yolo_backend.serving.request import Outcome, Predictor
from yolo_backend.settings import Settings

_CONNECT_TIMEOUT_S = 10.0
_DATASET_TASKS, _DATASET_BYTES = 5000, 500_000_000  # they lie in the cluster's memory
_STARTS_FAILED_IN_A_ROW = 5
# A cluster needs half a minute to see that a node is dead, and starts workers there until then.
_TRIES_IN_VAIN, _TRY_AGAIN_AFTER_S = 3, 20.0
_BLOCK_TASKS = 32  # if a node is lost, another one does these again
_NEVER_RAN = "The actor never ran - it was cancelled before it started running."  # Ray's line below the cause


class _Row(TypedDict):
    number: int
    task: str


class ClusterError(UserError):
    """The cluster can't do the work; the message says what to do."""


def stream_on_ray(
    tasks: Iterable[Task], plan: ProjectPlan, project: str, settings: Settings, *, address: str | None = None
) -> Iterator[tuple[Task, Outcome]]:
    """Each task with its prediction or why there is none, as `Predictor.stream`, by all nodes of a cluster.

    `address` is the cluster's; without one, a cluster of this machine alone is started. Each node, or each of its GPUs,
    has a model of its own, from the weights at the same path as here. If a node dies, another one does its work. Ray
    prints about its nodes on standard output, from threads of its own. Raises ClusterError.
    """
    with _cluster(address) as ray:
        share = _share_of_a_worker(ray, settings)
        worker = {"fn_constructor_args": (_for_nodes(settings), plan, project), **share}
        for rows in _datasets(tasks):
            yield from _by_workers(ray, rows, worker)


def _by_workers(ray: Any, rows: list[_Row], worker: dict[str, Any]) -> Iterator[tuple[Task, Outcome]]:
    """Each row's task and outcome. If Ray gives up, what is left is tried again. Raises ClusterError."""
    left = {row["number"]: row for row in rows}
    in_vain = 0
    while left:
        dataset = ray.data.from_items(list(left.values()), override_num_blocks=-(-len(left) // _BLOCK_TASKS))
        try:
            for row in dataset.map_batches(_Worker, batch_size=None, batch_format="numpy", **worker).iter_rows():
                task, outcome = from_json(row["task"].encode()), _read_outcome(row["outcome"])
                del left[row["number"]]
                in_vain = 0
                yield task, outcome
        except ray.exceptions.RayError as error:
            in_vain += 1
            if in_vain == _TRIES_IN_VAIN:
                raise ClusterError(f"Ray gave up: {_cause(error)}") from None
            time.sleep(_TRY_AGAIN_AFTER_S)


class _Worker:
    """What a node does with a block of tasks; Ray makes one for each worker process."""

    def __init__(self, settings: Settings, plan: ProjectPlan, project: str) -> None:
        self._predictor = Predictor(settings)
        self._plan = plan
        self._project = project

    def __call__(self, block: Mapping[str, Any]) -> dict[str, list[Any]]:
        if problem := self._problem():  # returned as data, because Ray would bury an error in its own
            return {"number": [-1], "task": ["{}"], "outcome": [to_json({"problem": problem}).decode()]}
        tasks = [from_json(text.encode()) for text in block["task"]]
        numbers = {id(task): int(number) for task, number in zip(tasks, block["number"], strict=True)}
        done = list(self._predictor.stream(tasks, self._plan, self._project))
        return {
            "number": [numbers[id(task)] for task, _ in done],
            "task": [to_json(task).decode() for task, _ in done],
            "outcome": [_write_outcome(outcome) for _, outcome in done],
        }

    def _problem(self) -> str | None:
        node = os.uname().nodename
        for served in self._plan.controls:
            try:
                there = self._predictor.catalog.wait_for_info(served.weights_name, None)
            except WeightsError as error:
                return f"On the node {node}: {error}"
            if there.fingerprint != served.weights.fingerprint:
                return f"{served.weights_name} on the node {node} are other weights than here"
        return None


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # With this, devices are hidden only from workers that ask for some. It is Ray's own default from its next release
    # on.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        command = "pip install '.[ray]' -c constraints.txt"
        raise ClusterError(f"Ray isn't installed: {command}, in the backend's folder") from None
    if address:
        _check_there(address)
    alone: dict[str, Any] = {"num_cpus": usable_cores(), "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            runtime_env={"py_modules": [str(Path(__file__).resolve().parent.parent)]},
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if address else alone),
        )
    except (ConnectionError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Ray doesn't start: {first_line(error)}") from None
    try:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # A node may die while its worker starts. By default, Ray gives up at the first one.
        context.max_consecutive_actor_init_deaths = _STARTS_FAILED_IN_A_ROW
        yield ray
    finally:
        ray.shutdown()


def _check_there(address: str) -> None:
    """Check the address first, because Ray itself would try for minutes. Raises ClusterError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"{address} is no address of a Ray cluster: it should look like ray-head:6379")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(f"No Ray cluster at {address} ({first_line(error)}): see `ray status` there") from None


def _share_of_a_worker(ray: Any, settings: Settings) -> dict[str, Any]:
    """What each worker takes of the cluster, and how many there are: one for each GPU, or for each node."""

    def pool(workers: int) -> Any:
        return ray.data.ActorPoolStrategy(min_size=1, max_size=workers)

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus and (settings.device == "auto" or settings.device.startswith("cuda")):
        return {"num_gpus": 1, "compute": pool(gpus)}
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    if not nodes:
        raise ClusterError("The Ray cluster has no CPU to work with: see `ray status`")
    return {"num_cpus": min(node["CPU"] for node in nodes), "compute": pool(len(nodes))}


def _for_nodes(settings: Settings) -> Settings:
    """The settings for a worker, which runs in another folder and sees only its own GPU."""
    root, media_root = settings.local_files_document_root, settings.label_studio_media_root
    return settings.model_copy(
        update={
            "model_root": settings.model_root.resolve(),
            "model_dir": settings.model_dir.resolve(),
            "local_files_document_root": root and root.resolve(),
            "label_studio_media_root": media_root and media_root.resolve(),
            "device": "cuda:0" if settings.device.startswith("cuda") else settings.device,
        }
    )


def _write_outcome(outcome: Outcome) -> str:
    told = {"failure": asdict(outcome)} if isinstance(outcome, Failure) else {"prediction": outcome}
    return to_json(told).decode()


def _read_outcome(text: str) -> Outcome:
    told = from_json(text.encode())
    if "problem" in told:
        raise ClusterError(told["problem"])
    if "failure" in told:
        return Failure(**{**told["failure"], "kind": FailureKind(told["failure"]["kind"])})
    prediction: Prediction = told["prediction"]
    return prediction


def _cause(error: Exception) -> str:
    """What Ray says is wrong. The first lines are its own frames."""
    lines = str(error).strip().splitlines()
    return next((line for line in reversed(lines) if line != _NEVER_RAN), lines[-1])


def _datasets(tasks: Iterable[Task]) -> Iterator[list[_Row]]:
    """The tasks as rows, in parts of a bounded size, because a task may hold its image itself."""
    rows: list[_Row] = []
    size = 0
    for task in tasks:
        rows.append({"number": len(rows), "task": to_json(task).decode()})
        size += len(rows[-1]["task"])
        if len(rows) == _DATASET_TASKS or size > _DATASET_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
