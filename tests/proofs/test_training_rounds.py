"""Trainings by the command, one after the other, with a real Label Studio and a server that serves meanwhile."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.harness.coloured_things import CONFIG as ROTATED_CONFIG
from tests.harness.coloured_things import Thing, draw
from tests.harness.command import start_command
from tests.harness.detections import MakeWeights
from tests.harness.labelled_scenes import CONFIG, region, sent_as
from tests.harness.postgres import SQLITE, label_studio_on
from tests.harness.stack import BackendServer, LabelStudioServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient, uploaded_name
from tests.harness.trainings import until
from yolo_backend.demo.scenes import draw_scene, save_scene
from yolo_backend.labels.places import corners_of_box
from yolo_backend.labels.polygons import polygon_iou

pytestmark = [pytest.mark.training_proof, pytest.mark.timeout(3600)]

_TRAINS_FOR_S = 1800
IMAGE_WH = (320, 240)


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    with label_studio_on(SQLITE, tmp_path_factory.mktemp("rounds") / "label-studio", quick_imports=False) as server:
        yield server


@pytest.fixture(scope="module")
def token(label_studio: LabelStudioServer) -> str:
    return label_studio.personal_access_token()


@pytest.fixture(scope="module")
def client(label_studio: LabelStudioServer, token: str) -> StudioClient:
    return StudioClient(label_studio.url, token)


@pytest.fixture
def environment(label_studio: LabelStudioServer, token: str, bccd_weights: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": token,
        "MODEL_NAME": bccd_weights.name,
        "MODEL_ROOT": str(bccd_weights.parent),
        "MODEL_DIR": str(tmp_path / "models"),
        "MODEL_IMAGE_SIZE": "160",
        "DEVICE": "cpu",
    }


def run_json(environment: dict[str, str], cwd: Path, *arguments: str) -> Any:
    """What a command that must succeed prints with `--json`, in a process of its own."""
    with start_command(*arguments, "--json", environment=environment, cwd=cwd) as process:
        stdout, stderr = process.communicate(timeout=_TRAINS_FOR_S)
    assert process.returncode == 0, stderr
    return json.loads(stdout)


def label_scenes(client: StudioClient, project: int, seeds: range, folder: Path) -> None:
    """Upload the scenes of these seeds, and label them rightly."""
    scenes = {f"scene-{seed}.jpg": draw_scene(seed) for seed in seeds}
    for name, scene in scenes.items():
        save_scene(scene, folder / name)
    names = list(scenes)
    for start in range(0, len(names), 25):
        client.upload(project, [folder / name for name in names[start : start + 25]])
    for task in client.tasks(project):
        if (name := uploaded_name(task)) in scenes:
            result = [region(scenes[name], number) for number in range(len(scenes[name].class_ids))]
            client.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result})


def version_of(server: BackendServer, project: str) -> str | None:
    """What the page would show; None as long as the weights are read."""
    body = {"project": project, "schema": CONFIG, "hostname": "", "access_token": "", "extra_params": None}
    answer = requests.post(f"{server.url}/setup", json=body, timeout=30)
    if answer.status_code == 503:
        return None
    assert answer.ok, answer.text
    return str(answer.json()["model_version"])


def test_a_second_model_is_judged_by_the_one_that_serves(
    client: StudioClient, environment: dict[str, str], tmp_path: Path
) -> None:
    project = client.create_project("Rounds", CONFIG)
    label_scenes(client, project, range(510_000, 510_040), tmp_path)
    number, sent = str(project), sent_as(client, project)

    def train(*options: str) -> Any:
        return run_json(environment, tmp_path, "train", "--project", number, *options)

    first = train("--minutes", "0.5")
    assert first["promoted"], first["reason"]
    assert first["images"] == {"train": 30, "val": 10}
    assert first["map50"]["current"] is None

    serving = {**environment, "TRAINING": "on"}
    with backend_server(pick_port(0), serving, tmp_path / "backend.log") as server:
        wait_until_ready(server.url)
        until(lambda: version_of(server, sent) == first["model_version"], 60)

        label_scenes(client, project, range(520_000, 520_040), tmp_path)
        second = train("--minutes", "1.5")
        assert sum(second["images"].values()) == 80
        assert second["images"]["val"] == 20
        scores = second["map50"]
        assert scores["difference"] == pytest.approx(scores["candidate"] - scores["current"], abs=2e-4)
        assert scores["interval"][0] <= scores["difference"] <= scores["interval"][1]
        assert second["promoted"], second["reason"]
        how = "better" if scores["interval"][0] > 0 else "not clearly worse"
        assert second["reason"].startswith(f"It is {how} than the serving model: mAP50 ")
        assert " on 20 validation images, a difference of " in second["reason"]
        assert second["model_version"] != first["model_version"]
        until(lambda: version_of(server, sent) == second["model_version"], 60)

        hasty = train("--minutes", "0.1", "--seed", "1")
        assert not hasty["promoted"], hasty["reason"]
        assert hasty["model_version"] is None
        # What serves is the second one, which finds the same as when it was judged.
        assert hasty["map50"]["current"] == pytest.approx(scores["candidate"], abs=0.01)
        assert hasty["map50"]["interval"][1] < 0
        assert hasty["reason"].startswith(
            ("It is worse than the serving model in ", "It finds no more than chance does")
        )
        assert version_of(server, sent) == second["model_version"]

        kept = run_json(environment, tmp_path, "models", "--project", number)
        assert kept["serves"] == second["run"]
        assert [run["verdict"] for run in kept["runs"]] == ["refuse", "promote", "promote"]
        back = run_json(environment, tmp_path, "models", "--project", number, "--roll-back")
        assert back["serves"] == first["run"]
        until(lambda: version_of(server, sent) == first["model_version"], 60)
        client.connect(project, server.url)
        client.retrieve_predictions(project)
        until(lambda: client.total_predictions(project) == 80, 120)
    versions = {each["model_version"] for those in client.predictions(project).values() for each in those}
    assert versions == {first["model_version"]}


def bars(seed: int) -> list[Thing]:
    """Two to five narrow bars at any angle, which don't touch."""
    generator = np.random.default_rng(seed)
    cells = generator.permutation(6)[: generator.integers(2, 6)]
    return [
        Thing(
            ("red", "blue")[generator.integers(2)],
            (55 + 105 * (cell % 3) + generator.uniform(-6, 6), 62 + 116 * (cell // 3) + generator.uniform(-6, 6)),
            (generator.uniform(66, 88), generator.uniform(20, 28)),
            generator.uniform(0, 180),
        )
        for cell in cells.tolist()
    ]


def test_rotated_rectangles_are_learned_judged_and_served_as_they_were_drawn(
    client: StudioClient, environment: dict[str, str], make_weights: MakeWeights, tmp_path: Path
) -> None:
    """From Label Studio's angles to a model of OBB weights, and back to rotated rectangles."""
    base = make_weights("yolo11n-obb")
    settings = {**environment, "MODEL_ROOT": str(base.parent), "MODEL_NAME": base.name}
    project = client.create_project("Bars", ROTATED_CONFIG)
    drawn = {f"bars-{seed}.jpg": bars(seed) for seed in range(60)}
    for name, things in drawn.items():
        noise = np.random.default_rng(len(name)).normal(0, 8, (*IMAGE_WH[::-1], 3))
        pixels = np.clip(np.asarray(draw(things, IMAGE_WH)) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, quality=92)
    files = [tmp_path / name for name in drawn]
    for start in range(0, len(files), 25):
        client.upload(project, files[start : start + 25])
    tasks = client.tasks(project)
    labelled, others = tasks[:52], tasks[52:]
    for task in labelled:
        result = [thing.region(IMAGE_WH) for thing in drawn[uploaded_name(task)]]
        client.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result})

    options = ("--base", base.name, "--minutes", "3")
    result = run_json(settings, tmp_path, "train", "--project", str(project), *options)
    assert result["promoted"], result["reason"]
    assert result["reason"].startswith("Nothing else serves these labels, and it finds more than chance does: mAP50 ")
    assert result["images"] == {"train": 39, "val": 13}
    assert set(result["labels"]) == {"red", "blue"}
    # Held against the hulls of such narrow bars, hardly any rotated box would be a hit.
    assert result["map50"]["candidate"] > 0.4

    run_json(settings, tmp_path, "prelabel", "--project", str(project))
    found = there = 0
    for task in client.tasks(project)[len(labelled) :]:
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == result["model_version"]
        shown = [
            (each["value"]["rectanglelabels"][0], corners_of_box(box_of(each["value"])))
            for each in prediction["result"]
        ]
        for thing in drawn[uploaded_name(task)]:
            there += 1
            corners = [tuple(corner) for corner in thing.corners.tolist()]
            found += any(label == thing.label and polygon_iou(corners, other) > 0.5 for label, other in shown)
    assert len(others) == 8
    assert found / there > 0.4, "of bars in images that nobody labelled"


def box_of(value: dict[str, float]) -> tuple[float, float, float, float, float]:
    """A region's center, size and clockwise radians in pixels: Label Studio turns it around its top left corner."""
    width, height = value["width"] * IMAGE_WH[0] / 100, value["height"] * IMAGE_WH[1] / 100
    radians = math.radians(value["rotation"])
    across, down = width / 2, height / 2
    return (
        value["x"] * IMAGE_WH[0] / 100 + across * math.cos(radians) - down * math.sin(radians),
        value["y"] * IMAGE_WH[1] / 100 + across * math.sin(radians) + down * math.cos(radians),
        width,
        height,
        radians,
    )
