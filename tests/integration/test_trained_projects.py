"""Trained weights on a real server: one project's own, promoted and taken back; and before the first training."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.harness.command import run_command
from tests.harness.http_server import RecordingServer, StartServer, reply
from tests.harness.stack import BackendServer, backend_server, pick_port
from tests.harness.weights import labels_for, renamed_weights, wait_for
from yolo_backend.detection.checkpoints import write_checkpoint
from yolo_backend.detection.exports import ExportOptions, Exports
from yolo_backend.detection.record import TrainedRecord
from yolo_backend.detection.weights import WeightsError, file_fingerprint, put_weights
from yolo_backend.protocol import project_key
from yolo_backend.serving.ray_workers import _Worker
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings
from yolo_backend.training.records import Options
from yolo_backend.training.registry import ProjectModels, Registry

NAME = "mine.pt"
LABELS = labels_for(["first", "second", "third"])
OWN, OTHER, LATER = "7.1700000000", "8.1700000000", "7.1800000000"
NAMED_WITHIN_S = 10.0
TOKEN = "0" * 40
TASK_IDS = itertools.count(1)  # each is answered once, so none is asked for again


class House:
    """A folder of weights, what was trained, a Label Studio that says when project 7 was created, and servers."""

    def __init__(self, folder: Path, studio: RecordingServer, original: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.model_dir = folder / "model_dir"
        self.environment = {
            "MODEL_NAME": NAME,
            "MODEL_ROOT": str(folder / "models"),
            "MODEL_DIR": str(self.model_dir),
            "MODEL_IMAGE_SIZE": "160",
            "ENGINE": "torch",  # exports take long, and one test of them is enough
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": TOKEN,
        }
        self._original = original
        self._stack = stack
        put_weights(self.weights("first"), NAME, folder / "models")
        key = project_key(studio.url, OWN)
        assert key
        self.models: ProjectModels = Registry(self.model_dir).project(key)

    def weights(self, name: str) -> Path:
        """Weights one of whose classes has this name."""
        return renamed_weights(self._original, name, self.folder)

    def train(self, name: str, threshold: float = 0.25) -> str:
        """A run that made such weights."""
        run = self.models.begin_run(Options(NAME, 1)).run
        path = self.models.folder_of(run) / "weights.pt"
        write_checkpoint(self.weights(name), path, TrainedRecord({name: threshold}, run, self.models.key))
        return run

    def export(self, path: Path) -> None:
        """As whoever promotes does it before."""
        options = ExportOptions(file_fingerprint(path), "onnx", "cpu", 300)
        Exports(self.model_dir / "exports").make(path, options)

    def server(self, **more: str) -> BackendServer:
        environment = {**self.environment, **more}
        return self._stack.enter_context(backend_server(pick_port(0), environment, self.folder / "backend.log"))

    def predictor(self, **more: Any) -> Predictor:
        """What a command predicts with, by the same settings."""
        settings = load_settings(
            model_name=NAME,
            model_root=self.folder / "models",
            model_dir=self.model_dir,
            model_image_size=160,
            engine="torch",
            label_studio_url=self.environment["LABEL_STUDIO_URL"],
            label_studio_api_key=TOKEN,
            **more,
        )
        return self._stack.enter_context(closing(Predictor(settings)))


@pytest.fixture
def house(
    clean_environment: pytest.MonkeyPatch, tmp_path: Path, serve: StartServer, bccd_weights: Path
) -> Iterator[House]:
    project = {"id": 7, "title": "Newts", "label_config": LABELS, "created_at": "2023-11-14T22:13:20Z"}
    studio = serve(reply(json.dumps({**project, "email": "me", "tasks": []}).encode(), Content_Type="application/json"))
    (tmp_path / "models").mkdir()
    with ExitStack() as stack:
        yield House(tmp_path, studio, bccd_weights, stack)


def setup(server: BackendServer, project: str = OWN, label_config: str = LABELS) -> requests.Response:
    body = {"project": project, "schema": label_config, "hostname": "", "access_token": ""}
    return requests.post(f"{server.url}/setup", json=body, timeout=10)


def version_of(server: BackendServer, project: str = OWN, label_config: str = LABELS) -> str:
    answer = setup(server, project, label_config)
    answer.raise_for_status()
    return str(answer.json()["model_version"])


def predict(
    server: BackendServer, photo: Path, project: str = OWN, label_config: str = LABELS, *, tasks: int = 2, **params: Any
) -> list[Any]:
    image = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()
    body = {
        "project": project,
        "label_config": label_config,
        "tasks": [{"id": next(TASK_IDS), "data": {"image": image}} for _ in range(tasks)],
        "params": {"context": None, **params},
    }
    return list(requests.post(f"{server.url}/predict", json=body, timeout=120).json()["results"])


def labels_and_versions(results: list[Any]) -> set[tuple[str, str]]:
    assert all(results), "none is lost"
    return {
        (region["value"]["rectanglelabels"][0], prediction["model_version"])
        for prediction in results
        for region in prediction["result"]
    }


def named_after(server: BackendServer, before: str) -> tuple[str, float]:
    """The version that takes the place of this one, and after how many seconds."""
    began_at = time.monotonic()
    version = wait_for(lambda: (found := version_of(server)) != before and found)
    return str(version), time.monotonic() - began_at


@pytest.mark.parametrize("engine", ["torch", pytest.param("onnx", marks=pytest.mark.proof)])
def test_a_promoted_model_serves_its_own_project_until_it_is_taken_back(
    house: House, bccd_files: list[Path], engine: str
) -> None:
    second, third = house.train("second", 0.5), house.train("third")
    if engine == "onnx":
        for path in (house.folder / "models" / NAME, *filter(None, map(house.models.weights_of, (second, third)))):
            house.export(path)
    server = house.server(ENGINE=engine)
    base = version_of(server)
    assert base.startswith("mine-")
    assert labels_and_versions(predict(server, bccd_files[0])) == {("first", base)}

    house.models.promote(second)
    with_second, seconds = named_after(server, base)
    assert with_second.startswith("project-7-")
    assert seconds < NAMED_WITHIN_S
    results = predict(server, bccd_files[0])
    assert labels_and_versions(results) == {("second", with_second)}
    assert min(region["score"] for each in results for region in each["result"]) >= 0.5
    for project in (OTHER, LATER):
        assert version_of(server, project) == base, "it serves no other project"
        assert labels_and_versions(predict(server, bccd_files[0], project)) == {("first", base)}
    assert version_of(server) == with_second
    shown = next(each for each in requests.get(server.url, timeout=10).json()["projects"] if each["project"] == "7")
    assert shown["controls"][0]["model"] == "project-7.pt"
    assert shown["controls"][0]["labels"] == [{"label": "second", "classes": ["second"], "threshold": 0.5}]

    house.models.promote(third)
    with_third, seconds = named_after(server, with_second)
    assert seconds < NAMED_WITHIN_S
    results = predict(server, bccd_files[0])
    assert labels_and_versions(results) == {("third", with_third)}
    assert min(region["score"] for each in results for region in each["result"]) < 0.5, "its threshold is another one"

    assert house.models.roll_back() == second
    assert named_after(server, with_third)[0] == with_second
    assert labels_and_versions(predict(server, bccd_files[0])) == {("second", with_second)}
    assert house.models.roll_back() is None
    back, seconds = named_after(server, with_second)
    assert (back, seconds < NAMED_WITHIN_S) == (base, True)
    assert labels_and_versions(predict(server, bccd_files[0])) == {("first", base)}
    assert requests.get(server.url, timeout=10).json()["refused"] == []


@pytest.mark.proof
def test_no_answer_mixes_two_while_models_are_promoted_and_taken_back(house: House, bccd_files: list[Path]) -> None:
    """Not exported before, so that a switch takes as long as it can."""
    second = house.train("second")
    server = house.server(ENGINE="onnx")
    base = version_of(server)
    seen = labels_and_versions(predict(server, bccd_files[0]))
    house.models.promote(second)
    while (version := version_of(server)) == base:
        seen |= labels_and_versions(predict(server, bccd_files[0]))
    seen |= labels_and_versions(predict(server, bccd_files[0]))
    house.models.roll_back()
    while version_of(server) == version:
        seen |= labels_and_versions(predict(server, bccd_files[0]))
    seen |= labels_and_versions(predict(server, bccd_files[0]))
    assert seen == {("first", base), ("second", version)}


def test_after_a_restart_the_promoted_model_serves_from_the_first_answer_on(
    house: House, bccd_files: list[Path]
) -> None:
    house.models.promote(house.train("second"))
    server = house.server()
    answers = [setup(server)]
    while not answers[-1].ok:
        answers.append(setup(server))
    assert {answer.status_code for answer in answers} <= {200, 503}
    version = answers[-1].json()["model_version"]
    assert version.startswith("project-7-")
    assert labels_and_versions(predict(server, bccd_files[0])) == {("second", version)}


def test_a_broken_model_leaves_what_serves(house: House, bccd_files: list[Path]) -> None:
    server = house.server()
    base = version_of(server)
    whole = house.weights("second").read_bytes()
    house.models.file.parent.mkdir(parents=True)
    house.models.file.write_bytes(whole[: len(whole) // 2])
    (reason,) = wait_for(lambda: requests.get(server.url, timeout=10).json()["refused"])
    assert reason.startswith(f"A new file trained/{house.models.key}/project-7.pt can't be used, so mine.pt serves: ")
    assert version_of(server) == base
    assert labels_and_versions(predict(server, bccd_files[0])) == {("first", base)}
    house.models.file.write_bytes(whole)
    assert named_after(server, base)[0].startswith("project-7-")


# Publishing


@pytest.mark.proof
def test_publish_lets_weights_serve_one_project(house: House) -> None:
    """The project by its whole name, and by its id alone, of which Label Studio says the rest."""
    server = house.server()
    base = version = version_of(server)
    trainer = house.predictor()
    half = house.folder / "half.pt"
    half.write_bytes(house.weights("second").read_bytes()[:-1000])
    for project in (OWN, "7"):
        with pytest.raises(WeightsError, match=r"half\.pt"):
            trainer.publish(half, project=project)
        with pytest.raises(WeightsError, match="give one of the two"):
            trainer.publish(house.weights("second"), NAME, project)
    assert not house.models.file.exists()
    for project, name in ((OWN, "second"), ("7", "third")):
        fingerprint = trainer.publish(house.weights(name), project=project)
        assert fingerprint == file_fingerprint(house.models.file)
        version, _ = named_after(server, version)
        assert version_of(server, OTHER) == base
        there = house.predictor().plan(LABELS, None, project=OWN)
        assert there.model_version == version, "a command says the same"


def test_it_must_be_known_which_project_that_is(house: House, clean_environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(model_name=NAME, model_root=house.folder / "models", model_dir=house.model_dir)
    with closing(Predictor(settings)) as alone, pytest.raises(WeightsError, match="set LABEL_STUDIO_URL and LABEL"):
        alone.publish(house.weights("second"), project="7")


def test_the_nodes_of_a_cluster_serve_a_project_s_own_weights_or_say_what_is_wrong(
    house: House, bccd_files: list[Path]
) -> None:
    house.models.promote(house.train("second"))
    predictor = house.predictor()
    plan = predictor.plan(LABELS, None, project=OWN)
    image = "data:image/jpeg;base64," + base64.b64encode(bccd_files[0].read_bytes()).decode()
    block = {"number": [0], "task": [json.dumps({"id": 1, "data": {"image": image}})]}
    worker = _Worker(predictor.settings, plan, "7")
    (outcome,) = [json.loads(each) for each in worker(block)["outcome"]]
    assert labels_and_versions([outcome["prediction"]]) == {("second", plan.model_version)}
    worker._predictor.close()
    elsewhere = _Worker(predictor.settings.model_copy(update={"model_dir": house.folder / "elsewhere"}), plan, "7")
    (outcome,) = [json.loads(each) for each in elsewhere(block)["outcome"]]
    assert "There are no trained weights project-7.pt in" in outcome["problem"]
    elsewhere._predictor.close()


# Before the first training


def test_a_project_can_be_connected_before_its_first_training(house: House, bccd_files: list[Path]) -> None:
    server = house.server(TRAINING="on")
    newts = labels_for(["newt", "toad"])
    wait_for(lambda: requests.get(f"{server.url}/health", timeout=10).ok)
    assert version_of(server, OWN, newts) == "untrained"
    assert predict(server, bccd_files[0], OWN, newts) == [[], []]
    assert predict(server, bccd_files[0], OWN, newts, tasks=1) == [[]]
    drawn = {"result": [{"id": "a", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": {}}]}
    assert predict(server, bccd_files[0], OWN, newts, tasks=1, context=drawn) == [{"result": []}]
    status = requests.get(server.url, timeout=10).json()
    assert (status["work"], status["failures"]) == ([], [])
    assert requests.get(server.url, headers={"Accept": "text/html"}, timeout=10).ok
    assert "untrained" in requests.get(f"{server.url}/versions", timeout=10).json()["versions"]
    assert version_of(server, OWN, LABELS).startswith("mine-"), "one that has a class is served as ever"

    house.models.promote(house.train("newt"))
    wait_for(lambda: version_of(server, OWN, newts) != "untrained")
    version = version_of(server, OWN, newts)
    assert version.startswith("project-7-")
    assert labels_and_versions(predict(server, bccd_files[0], OWN, newts)) == {("newt", version)}
    assert version_of(server, OTHER, newts) == "untrained"


def test_without_training_it_is_refused_and_a_promoted_model_serves(house: House) -> None:
    server = house.server()
    newts = labels_for(["newt", "toad"])
    wait_for(lambda: requests.get(f"{server.url}/health", timeout=10).ok)
    answer = setup(server, OWN, newts)
    assert answer.status_code == 422
    assert "None of the labels newt, toad is a class of mine.pt" in answer.json()["error"]
    house.models.promote(house.train("newt"))
    wait_for(lambda: setup(server, OWN, newts).ok)


@pytest.mark.parametrize("command", [("prelabel",), ("sample",), ("prelabel", "--dry-run")])
def test_commands_say_that_nothing_is_trained_yet(
    house: House, serve: StartServer, tmp_path: Path, command: tuple[str, ...]
) -> None:
    project = {"id": 7, "title": "Newts", "label_config": labels_for(["newt"]), "created_at": "2023-11-14T22:13:20Z"}
    studio = serve(reply(json.dumps({**project, "tasks": [], "total": 1}).encode(), Content_Type="application/json"))
    environment = {**house.environment, "LABEL_STUDIO_URL": studio.url, "TRAINING": "on"}
    done = run_command(*command, "--project", "7", environment=environment, cwd=tmp_path / "cwd")
    assert done.returncode == 2
    assert done.stderr.startswith("Nothing predicts Newts yet: none of its labels is a class of mine.pt. Label images")
