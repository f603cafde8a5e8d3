"""`sample` on a real Label Studio: from a folder and from tasks, registered as the server would have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image, ImageEnhance

from tests.harness.command import run_command, run_json, run_process
from tests.harness.pictures import encode
from tests.harness.stack import BackendServer
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, boxes, uploaded_name

MORE_KEYS = {"camera": "Zeiss", "nested": {"slide": [1, 2]}}


@pytest.fixture
def photos(tmp_path: Path, bccd_files: list[Path]) -> Path:
    """Eight photographs in a folder, and one without a cell on it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, file in enumerate(bccd_files[:8]):
        shutil.copyfile(file, folder / f"{number}.jpg")
    (folder / "empty.png").write_bytes(encode(Image.new("RGB", (64, 64))))
    return folder


def make_tasks(client: StudioClient, title: str, photos: Path) -> int:
    """A project with the eight photographs, of which the first has an annotation."""
    project = client.create_project(title)
    client.upload(project, sorted(photos.glob("*.jpg")))
    first, *others = client.tasks(project)
    client.call("POST", f"/api/tasks/{first['id']}/annotations/", json={"result": []})
    for task in others:
        client.call("PATCH", f"/api/tasks/{task['id']}/", json={"data": task["data"] | MORE_KEYS})
    return project


def in_the_order_of_uncertainty(client: StudioClient, project: int) -> list[dict[str, Any]]:
    """The first tasks that the Data Manager shows when it is ordered by the column, the most uncertain first."""
    query = json.dumps({"ordering": ["-tasks:data.uncertainty"]})
    page = client.call("GET", "/api/tasks", params={"project": project, "query": query, "fields": "all"})
    return [task for task in page["tasks"] if "uncertainty" in task["data"]]


def test_of_a_folder_the_most_uncertain_become_tasks_with_the_servers_predictions(
    client: StudioClient,
    either_environment: dict[str, str],
    photos: Path,
    tmp_path: Path,
    backend: BackendServer,
) -> None:
    project = client.create_project("of a folder")
    client.upload(project, [photos / "0.jpg"])
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")

    done = run_command(
        "sample", photos, "-p", str(project), "--count", "3", "--register", "--json",
        environment=either_environment, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["pool"], told["registered"], told["written"]) == (9, 3, 0)
    assert [Path(lost["image"]).name for lost in told["failed"]] == ["broken.jpg"]
    uncertainties = [item["uncertainty"] for item in told["chosen"]]
    assert uncertainties == sorted(uncertainties, reverse=True)
    by_hand, *tasks = client.tasks(project)
    chosen = {item["task"]: item for item in told["chosen"]}
    assert chosen.keys() == {task["id"] for task in tasks}
    for task in tasks:
        item, (prediction,) = chosen[task["id"]], task["predictions"]
        assert uploaded_name(task) == Path(item["image"]).name
        assert task["data"]["uncertainty"] == round(item["uncertainty"], 2)
        assert len(prediction["result"]) == item["above_threshold"] <= item["boxes"]
        assert LabelInterface(BCCD_CONFIG).validate_prediction(prediction)

    client.connect(project, backend.url)
    client.retrieve_predictions(project)
    # It had the first task to predict, and nothing else.
    assert [len(predictions) for predictions in client.predictions(project).values()] == [1, 1, 1, 1]
    assert by_hand["predictions"] == []
    versions = {one["model_version"] for several in client.predictions(project).values() for one in several}
    assert versions == {told["model_version"]}


def test_the_predictions_are_the_servers_own(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path, backend: BackendServer
) -> None:
    sampled, clicked = client.create_project("sampled"), client.create_project("clicked")
    run_json("sample", photos, "-p", str(sampled), "--register", environment=command_environment, cwd=tmp_path)
    client.upload(clicked, sorted(photos.iterdir()))
    client.connect(clicked, backend.url)
    client.retrieve_predictions(clicked)

    def found(project: int) -> dict[str, Any]:
        return {
            uploaded_name(task): (boxes(one), one["score"], one["model_version"])
            for task in client.tasks(project)
            for one in task["predictions"]
        }

    assert len(found(sampled)) == 9
    assert found(sampled) == found(clicked)


def test_tasks_that_are_there_get_their_uncertainty_and_one_prediction(
    client: StudioClient, either_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    project = make_tasks(client, "of tasks", photos)
    command = ("sample", "-p", str(project), "--register")

    one = run_json(*command, "--count", "1", environment=either_environment, cwd=tmp_path)
    four = run_json(*command, "--count", "4", environment=either_environment, cwd=tmp_path)
    again = run_json(*command, "--count", "4", environment=either_environment, cwd=tmp_path)

    assert (one["pool"], one["written"], one["predicted"], one["registered"]) == (7, 1, 1, 0)
    assert (four["pool"], four["written"], four["predicted"]) == (7, 4, 3)
    assert (again["chosen"], again["written"], again["predicted"]) == (four["chosen"], 4, 0)
    ordered = in_the_order_of_uncertainty(client, project)
    assert [task["data"]["uncertainty"] for task in ordered] == [
        round(item["uncertainty"], 2) for item in four["chosen"]
    ]
    of_task = {item["task"]: item for item in four["chosen"]}
    assert of_task.keys() == {task["id"] for task in ordered}
    for task in ordered:
        shown = round(of_task[task["id"]]["uncertainty"], 2)
        assert task["data"] == {"image": task["data"]["image"], **MORE_KEYS, "uncertainty": shown}
        assert [prediction["model_version"] for prediction in task["predictions"]] == [four["model_version"]]
        assert task["total_annotations"] == 0


def test_without_register_nothing_is_changed_and_the_report_is_drawn(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    project = make_tasks(client, "left alone", photos)
    before = client.tasks(project)

    done = run_process(
        "sample", "-p", "left alone", "-n", "3", "--aggregate", "mean", "--report", "report",
        environment=command_environment, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "Chosen: 3 of 7 tasks without annotations, by entropy, mean, of left alone" in done.stdout
    assert "/data/upload/" not in done.stdout
    assert done.stdout.count(".jpg") == 3
    assert "--diverse" not in done.stderr
    assert client.tasks(project) == before
    with (
        Image.open(tmp_path / "report" / "histogram.png") as histogram,
        Image.open(tmp_path / "report" / "chosen.jpg") as sheet,
    ):
        assert (histogram.format, sheet.format) == ("PNG", "JPEG")
        assert len(sheet.convert("RGB").getcolors(1 << 24) or []) > 1000  # photographs, not captions alone


def test_a_diverse_choice_is_not_one_video(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    client.create_project("video")

    def choose(*options: str) -> list[Path]:
        told = run_json("sample", photos, "-p", "video", *options, environment=command_environment, cwd=tmp_path)
        return [Path(item["image"]) for item in told["chosen"]]

    (scene,) = choose("--count", "1")
    with Image.open(scene) as picture:
        for number in range(1, 4):
            ImageEnhance.Brightness(picture).enhance(1 + number / 200).save(photos / f"frame-{number}.png")

    most_uncertain, diverse = choose("--count", "3"), choose("--count", "3", "--diverse")

    def frames(chosen: list[Path]) -> int:
        return sum(file == scene or file.name.startswith("frame-") for file in chosen)

    assert (len(most_uncertain), len(diverse)) == (3, 3)
    assert frames(most_uncertain) > 1
    assert frames(diverse) == 1


def test_before_any_label_has_a_class_images_are_chosen_at_random_or_least_alike(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    """There is nothing to be uncertain of, and that is when people ask what to label first."""
    config = BCCD_CONFIG.replace('"RBC"', '"bolt"').replace('"WBC"', '"nut"').replace('"Platelets"', '"washer"')
    project = client.create_project("no class", config)
    with Image.open(photos / "0.jpg") as picture:
        for number in range(1, 4):
            ImageEnhance.Brightness(picture).enhance(1 + number / 200).save(photos / f"frame-{number}.png")

    def choose(*options: str) -> tuple[list[str], dict[str, Any]]:
        told = run_json(
            "sample", photos, "-p", str(project), "-n", "3", *options, environment=command_environment, cwd=tmp_path
        )
        return [Path(item["image"]).name for item in told["chosen"]], told

    one, other = choose("--strategy", "random", "--seed", "1"), choose("--strategy", "random", "--seed", "2")
    diverse, told = choose("--diverse", "--register", "--report", "report")

    assert len({*one[0]}) == len({*other[0]}) == 3
    assert one[0] != other[0]
    assert sum(name.startswith("frame-") or name == "0.jpg" for name in diverse) <= 1
    assert {(item["uncertainty"], item["boxes"]) for item in told["chosen"]} == {(None, None)}
    tasks = client.tasks(project)
    assert sorted(uploaded_name(task) for task in tasks) == sorted(diverse)
    assert [task["predictions"] for task in tasks] == [[], [], []]
    assert not any("uncertainty" in task["data"] for task in tasks)
    assert (tmp_path / "report" / "chosen.jpg").exists()
    done = run_command("sample", photos, "-p", str(project), environment=command_environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "None of the labels bolt, nut, washer is a class of" in done.stderr


def test_a_diverse_choice_without_a_choice_says_so(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    client.create_project("no choice")
    done = run_command(
        "sample", photos, "-p", "no choice", "-n", "5", "--diverse", environment=command_environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "--diverse chose nothing: it chooses among the most uncertain half of the 9, and 5 were asked" in done.stderr


def test_a_random_choice_follows_from_the_seed(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    project = client.create_project("random")
    command = ("sample", photos, "-p", str(project), "--count", "3", "--strategy", "random", "--seed")

    told = [run_json(*command, seed, environment=command_environment, cwd=tmp_path)["chosen"] for seed in "112"]

    assert told[0] == told[1] != told[2]


def test_files_by_their_local_files_path(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path, local_files: Path
) -> None:
    project = client.create_project("local files")
    shutil.copytree(photos, local_files / "sampled")
    environment = command_environment | {"LOCAL_FILES_DOCUMENT_ROOT": str(local_files)}
    command = ("sample", local_files / "sampled", "-p", str(project), "--how", "local-files", "--register", "-n", "8")

    first = run_json(*command, environment=environment, cwd=tmp_path)
    second = run_json(*command, environment=environment, cwd=tmp_path)

    assert (first["pool"], first["registered"]) == (9, 8)
    assert (second["pool"], second["registered"]) == (1, 1)
    addresses = {task["data"]["image"] for task in client.tasks(project)}
    assert addresses == {f"/data/local-files/?d=sampled/{file.name}" for file in photos.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "nobody's"], 'No project is called "nobody\'s" for this token'),
        (["photos", "-p", "all there"], "Nothing to choose from: all of it is registered already"),
        (
            ["-p", "all labelled"],
            "Nothing to choose from: every task of all labelled is labelled or skipped",
        ),
        (["nowhere", "-p", "all there"], "nowhere is no folder, no file, no glob"),
        (["-p", "all there", "--url", "http://127.0.0.1:9"], "Label Studio doesn't answer at http://127.0.0.1:9"),
        (["-p", "all there", "--token", "0" * 40], "Label Studio refuses the token"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    client: StudioClient,
    command_environment: dict[str, str],
    photos: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    titles = {project["title"] for project in client.call("GET", "/api/projects/?page_size=1000")["results"]}
    if "all there" not in titles:
        client.upload(client.create_project("all there"), sorted(photos.iterdir()))
        client.create_project("all labelled")

    done = run_command("sample", *arguments, environment=command_environment, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
