"""Start Training with polygons, key points and choices: what no weights knew, held against what the scenes show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect

from tests.harness.app_here import text_of_page
from tests.harness.browser import StudioBrowser
from tests.harness.shapes import POINT_NAMES, Shapes, Thing, draw_shapes, shapes_weights
from tests.harness.stack import BackendServer, LabelStudioServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient, uploaded_name
from tests.harness.trainings import of_project, trainings_of, until, wait_for_the_end

NAMES = ("Stab", "Reif", "Pfeil")
"""That no weights know, in the order of the scenes' classes."""
FIRST_SEED = 700_000  # neither seen by the tests' weights, nor drawn by other tests
_TRAINS_FOR_S = 1500
_FINER = 8

_LABELS = "".join(f'<Label value="{name}"/>' for name in NAMES)
_POINTS = "".join(
    f'<Label value="{name}" predicted_values="{",".join(NAMES)}" model_index="{index}"/>'
    for index, name in enumerate(POINT_NAMES)
)
_CHOICES = "".join(f'<Choice value="{name}"/>' for name in NAMES)

Region = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is trained: `annotate` draws a scene's truth as the page stores it."""

    kind: str
    config: str
    size_wh: tuple[int, int]
    most: int
    annotate: Callable[[Shapes], list[Region]]
    minutes: int = 1
    labelled: int = 40
    new: int = 10

    def scenes(self) -> dict[str, Shapes]:
        """The scenes by the names of their files."""
        return {
            f"{self.kind}-{seed}.png": draw_shapes(seed, self.size_wh, most=self.most)
            for seed in range(FIRST_SEED, FIRST_SEED + self.labelled + self.new)
        }


@dataclass(frozen=True)
class Outcome:
    """What Label Studio has stored after the run: of each new image the scene, and the predicted regions."""

    predicted: list[tuple[Shapes, list[Region]]]

    def of_another_image(self) -> list[tuple[Shapes, list[Region]]]:
        """Each scene with the regions of the next one's image, as of a model that doesn't look at them."""
        scenes, regions = zip(*self.predicted, strict=True)
        return list(zip(scenes, (*regions[1:], regions[0]), strict=True))


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_polygons_are_learned_at_the_press_of_the_button(
    browser: StudioBrowser, serving: Callable[[Job], Any], client: StudioClient, tmp_path: Path
) -> None:
    def press(project: int, backend: BackendServer) -> None:
        browser.press_start_training(project)
        browser.page.goto(backend.url)
        expect(browser.page.locator("#training + article")).to_contain_text("epoch", timeout=1000 * _TRAINS_FOR_S)
        browser.keep_picture("it-trains")

    def look(backend: BackendServer) -> None:
        browser.page.goto(backend.url)
        expect(browser.page.locator("#training + article")).to_contain_text("the model of run 1 serves")
        browser.keep_picture("trained")

    job = Job("segment", outlined_config(), (160, 120), 4, outlines, minutes=2)
    with serving(job) as backend:
        outcome = train_and_predict(job, client, backend, tmp_path, press)
        look(backend)
    ious = overlaps(outcome.predicted)
    # 0.57 and 0.60 of 30 things were seen, with 37 polygons; 0.00 after one step, and 0.03 with those of other images.
    assert np.mean(ious > 0.5) > 0.4
    assert np.mean(ious[ious > 0.5]) > 0.7, "0.77 and 0.80 were seen"
    assert sum(len(regions) for _, regions in outcome.predicted) < 2 * len(ious)
    assert np.mean(overlaps(outcome.of_another_image()) > 0.5) < 0.15


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_key_points_are_learned_below_their_boxes(
    serving: Callable[[Job], Any], client: StudioClient, tmp_path: Path
) -> None:
    job = Job("pose", posed_config(), (160, 120), 4, poses, minutes=2)
    with serving(job) as backend:
        outcome = train_and_predict(job, client, backend, tmp_path, press_by_the_api(client))
    distances = point_distances(outcome.predicted)
    # 0.38 of 76 points were seen, 0.33 after a minute, and 0.00 after one step; 0.01 with those of other images.
    assert np.mean(distances < 0.15) > 0.25
    assert np.mean(np.isfinite(distances)) > 0.5, "0.68 were seen"
    assert np.mean(point_distances(outcome.of_another_image()) < 0.15) < 0.08


@pytest.mark.proof
@pytest.mark.training_proof
@pytest.mark.timeout(3600)
def test_choices_are_learned(serving: Callable[[Job], Any], client: StudioClient, tmp_path: Path) -> None:
    job = Job("classify", chosen_config(), (160, 160), 1, choices, new=40)
    with serving(job) as backend:
        outcome = train_and_predict(job, client, backend, tmp_path, press_by_the_api(client))
    # 0.73 of 40 were seen, and 0.20 of weights after one step. Always the most frequent choice: 0.43.
    assert np.mean(are_right(outcome.predicted)) > 0.55
    assert np.mean(are_right(outcome.of_another_image())) < 0.5


@pytest.fixture
def serving(label_studio: LabelStudioServer, personal_access_token: str, tmp_path: Path) -> Callable[[Job], Any]:
    """Starts a backend with the weights of the kind, which trains at 160 pixels."""

    @contextmanager
    def start(job: Job) -> Iterator[BackendServer]:
        weights = shapes_weights(job.kind)
        environment = {
            "LABEL_STUDIO_URL": label_studio.url,
            "LABEL_STUDIO_API_KEY": personal_access_token,
            "MODEL_NAME": weights.name,
            "MODEL_ROOT": str(weights.parent),
            "MODEL_DIR": str(tmp_path / "data"),
            "MODEL_IMAGE_SIZE": "160",
            "TRAINING": "on",
            "TRAIN_MINUTES": str(job.minutes),
        }
        with backend_server(pick_port(0), environment, tmp_path / "backend.log") as server:
            wait_until_ready(server.url)
            yield server

    return start


def press_by_the_api(client: StudioClient) -> Callable[[int, BackendServer], None]:
    """Presses Start Training as the page does."""

    def press(project: int, backend: BackendServer) -> None:
        (connection,) = client.call("GET", f"/api/ml?project={project}")
        client.call("POST", f"/api/ml/{connection['id']}/train", json={})
        until(lambda: trainings_of(backend, project)["running"] is not None, 120)

    return press


def train_and_predict(
    job: Job,
    client: StudioClient,
    backend: BackendServer,
    folder: Path,
    press: Callable[[int, BackendServer], None],
) -> Outcome:
    """A project from its first image to the predictions of its own model, each step checked."""
    scenes = job.scenes()
    for name, scene in scenes.items():
        Image.fromarray(scene.image).save(folder / name)
    project = client.create_project(job.kind, job.config)
    files = [folder / name for name in scenes]
    for start in range(0, len(files), 25):
        client.upload(project, files[start : start + 25])
    client.connect(project, backend.url)
    assert of_project(backend, project)["model_version"] == "untrained"
    client.retrieve_predictions(project)
    assert client.total_predictions(project) == 0, "nothing is stored before anything is trained"

    labelled = set(list(scenes)[: job.labelled])
    for task in client.tasks(project):
        if (name := uploaded_name(task)) in labelled:
            client.annotate(task["id"], job.annotate(scenes[name]))
    press(project, backend)
    run = wait_for_the_end(backend, project, _TRAINS_FOR_S)
    assert run["state"] == "ended", run
    assert run["result"]["promoted"], run["result"]["reason"]
    assert run["result"]["reason"].startswith("Nothing else serves these labels, and it finds more than chance does")
    assert run["result"]["images"] == {"train": 30, "val": 10}
    assert set(run["result"]["labels"]) == set(NAMES)

    version = run["result"]["model_version"]
    until(lambda: version_that_setup_names(client, backend, project) == version, 60)
    for _ in range(2):  # what comes after Label Studio was answered, and a second click
        client.retrieve_predictions(project)
        until(lambda: client.total_predictions(project) >= len(scenes), 120)
    stored = client.tasks(project)
    assert [len(task["predictions"]) for task in stored] == [1] * len(scenes), "once each"
    assert {task["predictions"][0]["model_version"] for task in stored} == {version}
    page = text_of_page(backend.url)
    assert "the model of run 1 serves" in page
    assert "Not trained on" not in page, "all that was drawn could be used"
    results = {uploaded_name(task): task["predictions"][0]["result"] for task in stored}
    return Outcome([(scene, results[name]) for name, scene in scenes.items() if name not in labelled])


def version_that_setup_names(client: StudioClient, backend: BackendServer, project: int) -> str:
    """What the backend answers when Label Studio shows the model's card, which is also what is stored of it."""
    (connection,) = client.call("GET", f"/api/ml?project={project}")
    told = of_project(backend, project)["model_version"]
    assert connection["model_version"] in {told, None}, connection
    return str(told)


# Polygons


def outlined_config() -> str:
    return (
        '<View><Image name="image" value="$image"/>'
        f'<PolygonLabels name="outline" toName="image">{_LABELS}</PolygonLabels></View>'
    )


def outlines(scene: Shapes) -> list[Region]:
    """Each thing's outer outline, of its largest part, within half a pixel."""
    return [
        {
            **drawn_on(scene, "outline", "polygonlabels"),
            "id": f"thing{number}",
            "value": {
                "points": (outline(thing) / size_of(scene) * 100).tolist(),
                "closed": True,
                "polygonlabels": [NAMES[thing.class_id]],
            },
        }
        for number, thing in enumerate(scene.things)
    ]


def outline(thing: Thing) -> NDArray[np.float64]:
    """Its points in pixels."""
    finer = np.kron(thing.mask.astype(np.uint8), np.ones((_FINER, _FINER), np.uint8))
    parts, _ = cv2.findContours(finer, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(parts, key=cv2.contourArea)
    points: NDArray[np.float64] = (cv2.approxPolyDP(largest, 0.5 * _FINER, closed=True)[:, 0] + 0.5) / _FINER
    return points


def filled(points: NDArray[np.float64], scene: Shapes) -> NDArray[np.bool_]:
    """What a polygon covers, in the eighths of the scene's pixels."""
    width, height = size_of(scene)
    image = np.zeros((height * _FINER, width * _FINER), np.uint8)
    cv2.fillPoly(image, [np.round(points * _FINER - 0.5).astype(np.int32)], 1)
    return image.astype(np.bool_)


def overlaps(predicted: Sequence[tuple[Shapes, list[Region]]]) -> NDArray[np.float64]:
    """Of each thing the best IoU that a polygon with its name has; a polygon is of one thing."""
    ious = []
    for scene, regions in predicted:
        shown = [
            (each["value"]["polygonlabels"], filled(np.array(each["value"]["points"]) / 100 * size_of(scene), scene))
            for each in regions
        ]
        table = np.array(
            [
                [
                    (mask & (truth := filled(outline(thing), scene))).sum() / (mask | truth).sum()
                    if names == [NAMES[thing.class_id]]
                    else 0
                    for names, mask in shown
                ]
                for thing in scene.things
            ]
        ).reshape(len(scene.things), len(shown))
        ious += [0 if own is None else table[row, own] for row, own in enumerate(columns(table))]
    return np.array(ious)


def columns(scores: NDArray[np.float64]) -> list[int | None]:
    """The column of each row that is its own: the best pair first, and none where all scores are 0."""
    left, own = scores.copy(), dict[int, int]()
    while left.size and left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        own[int(row)] = int(column)
        left[row], left[:, column] = 0, 0
    return [own.get(row) for row in range(len(scores))]


# Key points


def posed_config() -> str:
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="points_bbox" toName="image" model_skip="true">{_LABELS}</RectangleLabels>'
        f'<KeyPointLabels name="points" toName="image">{_POINTS}</KeyPointLabels></View>'
    )


def poses(scene: Shapes) -> list[Region]:
    """A box around what can be seen of each thing, and below it its points that can be seen."""
    regions = []
    for number, thing in enumerate(scene.things):
        left, top = thing.box_xyxy[:2] / size_of(scene) * 100
        width, height = (thing.box_xyxy[2:] - thing.box_xyxy[:2]) / size_of(scene) * 100
        regions.append(
            {
                **drawn_on(scene, "points_bbox", "rectanglelabels"),
                "id": f"thing{number}",
                "value": {
                    "x": left, "y": top, "width": width, "height": height, "rotation": 0,
                    "rectanglelabels": [NAMES[thing.class_id]],
                },
            }
        )  # fmt: skip
        regions += [
            {
                **drawn_on(scene, "points", "keypointlabels"),
                "id": f"thing{number}point{index}",
                "parentID": f"thing{number}",
                "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": [POINT_NAMES[index]]},
            }
            for index, (x, y) in enumerate((thing.points_xy / size_of(scene) * 100).tolist())
            if not thing.are_hidden[index]
        ]
    return regions


def point_distances(predicted: Sequence[tuple[Shapes, list[Region]]]) -> NDArray[np.float64]:
    """Of each point that can be seen, how far the predicted one is, in lengths of its thing; infinite without one.

    It is the point of its name below the box that is the thing's own: of the thing's name, and with an IoU above 0.5.
    """
    distances = []
    for scene, regions in predicted:
        boxes = [each for each in regions if each["type"] == "rectanglelabels"]
        ious = np.array([[_iou(thing, box, scene) for box in boxes] for thing in scene.things])
        own = ious.reshape(len(scene.things), len(boxes))
        own[own <= 0.5] = 0
        for thing, box in zip(scene.things, columns(own), strict=True):
            below = {
                each["value"]["keypointlabels"][0]: np.array([each["value"]["x"], each["value"]["y"]])
                for each in regions
                if box is not None and each.get("parentID") == boxes[box]["id"]
            }
            for index in np.flatnonzero(~thing.are_hidden).tolist():
                point = below.get(POINT_NAMES[index], np.array([np.inf, np.inf])) / 100 * size_of(scene)
                distances.append(float(np.hypot(*(point - thing.points_xy[index])) / thing.box_xywhr[2]))
    return np.array(distances)


def _iou(thing: Thing, box: Region, scene: Shapes) -> float:
    """Of a box with the thing's name and the thing's own; 0 of one with another name."""
    value = box["value"]
    if value["rectanglelabels"] != [NAMES[thing.class_id]]:
        return 0
    low = np.array([value["x"], value["y"]]) / 100 * size_of(scene)
    high = low + np.array([value["width"], value["height"]]) / 100 * size_of(scene)
    both = np.clip(np.minimum(high, thing.box_xyxy[2:]) - np.maximum(low, thing.box_xyxy[:2]), 0, None).prod()
    return float(both / ((high - low).prod() + (thing.box_xyxy[2:] - thing.box_xyxy[:2]).prod() - both))


# Choices


def chosen_config() -> str:
    return f'<View><Image name="image" value="$image"/><Choices name="kind" toName="image">{_CHOICES}</Choices></View>'


def choices(scene: Shapes) -> list[Region]:
    """What the only thing is."""
    return [
        {
            "id": "choice",
            "type": "choices",
            "from_name": "kind",
            "to_name": "image",
            "origin": "manual",
            "value": {"choices": [NAMES[scene.things[0].class_id]]},
        }
    ]


def are_right(predicted: Sequence[tuple[Shapes, list[Region]]]) -> list[bool]:
    """Whether exactly the right choice is predicted, of each image."""
    return [
        [each["value"]["choices"] for each in regions] == [[NAMES[scene.things[0].class_id]]]
        for scene, regions in predicted
    ]


def size_of(scene: Shapes) -> NDArray[np.int64]:
    """Width, height."""
    return np.array(scene.image.shape[1::-1])


def drawn_on(scene: Shapes, control: str, type_: str) -> Region:
    """What every region has that a person draws on the scene's image."""
    width, height = size_of(scene).tolist()
    return {
        "type": type_,
        "from_name": control,
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "origin": "manual",
    }
