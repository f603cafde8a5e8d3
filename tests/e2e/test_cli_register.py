"""`register` on a real Label Studio: each kind of source, each kind of label, twice, and what it exported itself."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.harness.command import run_command, run_json, run_process
from tests.harness.http_server import ServedFolder
from tests.harness.stack import LabelStudioServer
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, uploaded_name
from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import open_project, projects_of
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.registering.already_there import NAME_IS_THERE
from yolo_backend.registering.items import Item, RegisterError
from yolo_backend.registering.registration import register

ADDRESS = "https://example.com/cells/{number}.jpg?size=1"


@pytest.fixture
def photos(tmp_path: Path, bccd_files: list[Path]) -> Path:
    """Five photographs in a folder: one with blanks and an umlaut in its name, and one that EXIF turns upright."""
    folder = tmp_path / "photos"
    (folder / "day 2").mkdir(parents=True)
    for number, file in enumerate(bccd_files[:3]):
        (folder / f"{number}.jpg").write_bytes(file.read_bytes())
    (folder / "day 2" / "my phötö (1).jpg").write_bytes(bccd_files[3].read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(bccd_files[4]) as image:
        image.resize((320, 240)).save(folder / "turned.jpg", exif=exif)
    return folder


@pytest.fixture
def yolo_labels(bccd_labels: Path, photos: Path, bccd_files: list[Path]) -> Path:
    """Their labels in YOLO's layout, as people made them; the turned one has one of its own."""
    labels = photos.parent / "yolo" / "labels"
    (labels / "day 2").mkdir(parents=True)
    names = ["0", "1", "2", "day 2/my phötö (1)"]
    for name, file in zip(names, bccd_files, strict=False):
        (labels / f"{name}.txt").write_text((bccd_labels / f"{file.stem}.txt").read_text())
    (labels / "turned.txt").write_text("0 0.5 0.9 0.2 0.1\n")
    (labels.parent / "data.yaml").write_text((bccd_labels.parent / "data.yaml").read_text())
    return labels


def boxes_of(task: dict[str, Any], kind: str) -> list[tuple[str, int, float, float, float, float]]:
    """The boxes of a task's only annotation or prediction, sorted."""
    (labels,) = task[kind]
    return sorted(
        (
            region["value"]["rectanglelabels"][0],
            region["original_width"],
            *(region["value"][key] for key in ("x", "y", "width", "height")),
        )
        for region in labels["result"]
    )


def test_a_folder_is_uploaded_once(
    client: StudioClient,
    either_environment: dict[str, str],
    photos: Path,
    tmp_path: Path,
    label_studio: LabelStudioServer,
) -> None:
    project = client.create_project("a folder")

    first = run_json("register", photos, "-p", str(project), environment=either_environment, cwd=tmp_path)
    (photos / "new.jpg").write_bytes((photos / "turned.jpg").read_bytes() + b"another")
    second = run_json("register", photos, "-p", str(project), environment=either_environment, cwd=tmp_path)

    assert (first["registered"], first["left_out"]) == (5, 0)
    assert (second["registered"], second["left_out"]) == (1, 5)
    tasks = client.tasks(project)
    assert [task["id"] for task in tasks] == first["task_ids"] + second["task_ids"]
    assert [uploaded_name(task) for task in tasks] == [
        "0.jpg", "1.jpg", "2.jpg", "my_ph%C3%B6t%C3%B6_1.jpg", "turned.jpg", "new.jpg"
    ]  # fmt: skip
    headers = {"Authorization": f"Token {label_studio.legacy_token}"}
    uploaded = requests.get(label_studio.url + tasks[3]["data"]["image"], headers=headers, timeout=30)
    assert uploaded.content == (photos / "day 2" / "my phötö (1).jpg").read_bytes()


def test_what_a_person_uploaded_is_left_out_by_its_name(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    project = client.create_project("by hand")
    client.upload(project, [photos / "0.jpg", photos / "day 2" / "my phötö (1).jpg"])

    done = run_process("register", photos, "-p", "by hand", environment=command_environment, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert f"Registered 3 of 5 images in by hand ({client._studio.url}/projects/{project}/data)" in done.stdout
    assert f"Left out: 2 {NAME_IS_THERE}" in done.stdout
    assert len(client.tasks(project)) == 5


def test_addresses_of_standard_input_and_of_a_list(
    client: StudioClient, command_environment: dict[str, str], tmp_path: Path
) -> None:
    """More than one import takes, and more than one page of tasks."""
    project = client.create_project("addresses")
    addresses = [ADDRESS.format(number=number) for number in range(1100)]
    command = ("register", "-", "-p", str(project))
    (tmp_path / "all.txt").write_text("\n".join([*addresses, "s3://bucket/one more.jpg"]))

    first = run_command(*command, environment=command_environment, cwd=tmp_path, text_in="\n".join(addresses[:600]))
    dry = run_json(
        "register", "all.txt", "-p", str(project), "--dry-run", environment=command_environment, cwd=tmp_path
    )
    held = len(client.tasks(project))
    second = run_json("register", "all.txt", "-p", str(project), environment=command_environment, cwd=tmp_path)

    assert first.returncode == 0, first.stderr
    assert "Registered 600 of 600 images" in first.stdout
    assert (dry["registered"], dry["left_out"], dry["task_ids"], held) == (501, 600, [], 600)
    assert (second["registered"], second["left_out"], len(second["task_ids"])) == (501, 600, 501)
    assert [task["data"]["image"] for task in client.tasks(project)] == [*addresses, "s3://bucket/one more.jpg"]


def test_local_files_go_by_path(
    client: StudioClient,
    command_environment: dict[str, str],
    label_studio: LabelStudioServer,
    local_files: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    project = client.create_project("local files")
    folder = local_files / "to register" / "day 1"
    folder.mkdir(parents=True)
    (folder / "ä b.jpg").write_bytes((photos / "0.jpg").read_bytes())
    client.call("POST", "/api/storages/localfiles", json={"project": project, "path": str(folder.parent)})
    environment = command_environment | {"LOCAL_FILES_DOCUMENT_ROOT": str(local_files)}
    command = ("register", str(folder / "*.jpg"), "-p", str(project), "--how", "local-files")

    first = run_json(*command, environment=environment, cwd=tmp_path)
    second = run_json(*command, environment=environment, cwd=tmp_path)

    assert (first["registered"], second["registered"], second["left_out"]) == (1, 0, 1)
    (task,) = client.tasks(project)
    assert task["data"] == {"image": "/data/local-files/?d=to%20register/day%201/%C3%A4%20b.jpg"}
    headers = {"Authorization": f"Token {label_studio.legacy_token}"}
    served = requests.get(label_studio.url + task["data"]["image"], headers=headers, timeout=30)
    assert served.content == (photos / "0.jpg").read_bytes()


def test_yolo_labels_become_predictions(
    client: StudioClient, either_environment: dict[str, str], photos: Path, yolo_labels: Path, tmp_path: Path
) -> None:
    project = client.create_project("pre-annotated")
    (yolo_labels / "unused.txt").write_text("")

    told = run_json(
        "register", photos, "-p", str(project), "--labels", yolo_labels, "--model-version", "old-model",
        environment=either_environment, cwd=tmp_path,
    )  # fmt: skip

    tasks = client.tasks(project)
    lines = [line for file in yolo_labels.rglob("*.txt") for line in file.read_text().splitlines() if line.strip()]
    assert (told["labelled"], told["boxes"], told["labels_without_image"]) == (5, len(lines), 1)
    assert sum(len(boxes_of(task, "predictions")) for task in tasks) == len(lines)
    judge = LabelInterface(BCCD_CONFIG)
    for task in tasks:
        (prediction,) = task["predictions"]
        assert (prediction["model_version"], task["annotations"]) == ("old-model", [])
        stored = {key: prediction[key] for key in ("result", "model_version")}
        assert judge.validate_prediction(stored, return_errors=True) == []
    (turned,) = boxes_of(tasks[4], "predictions")
    assert turned == ("RBC", 240, *map(pytest.approx, (40, 85, 20, 10)))


def test_json_lines_become_annotations(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    project = client.create_project("annotated")
    boxes = [
        {"label": "rbc", "x": 64, "y": 48, "width": 128, "height": 96},
        {"label": "WBC", "x": 600, "y": -48, "width": 400, "height": 96},
        {"label": "WBC", "x": 640, "y": 0, "width": 10, "height": 10},
    ]
    lines = [{"image": "0.jpg", "boxes": boxes}, {"image": "1.jpg", "boxes": []}]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))

    done = run_command(
        "register", photos, "-p", str(project), "--labels", "labels.jsonl", "--as", "annotations",
        environment=command_environment, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "2 of them with 2 boxes as annotations" in done.stdout
    assert "Boxes left out because they have no area on their image: 1 (labels.jsonl:1)" in done.stderr
    labelled, empty, *others = client.tasks(project)
    assert boxes_of(labelled, "annotations") == [
        ("RBC", 640, *map(pytest.approx, (10, 10, 20, 20))),
        ("WBC", 640, *map(pytest.approx, (93.75, 0, 6.25, 10))),
    ]
    assert (boxes_of(empty, "annotations"), labelled["is_labeled"], empty["is_labeled"]) == ([], True, True)
    assert [(task["annotations"], task["is_labeled"]) for task in others] == [([], False)] * 3
    assert all(task["predictions"] == [] for task in (labelled, empty, *others))


@pytest.mark.parametrize(
    ("export", "labels"),
    [
        ("YOLO", "export"),
        ("YOLO", "export/labels"),
        ("YOLO_WITH_IMAGES", "export"),
        ("COCO", "export/result.json"),
        ("COCO_WITH_IMAGES", "export/result.json"),
    ],
)
def test_what_label_studio_exports_comes_back(
    client: StudioClient,
    command_environment: dict[str, str],
    photos: Path,
    yolo_labels: Path,
    tmp_path: Path,
    export: str,
    labels: str,
) -> None:
    first, second = (client.create_project(f"{name} {export} {labels}") for name in ("from", "to"))
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    run_json("register", photos, "-p", str(first), "--labels", yolo_labels, "--as", "annotations", **options)
    authorization = {"Authorization": client._studio.authorization() or ""}
    url = f"{client._studio.url}/api/projects/{first}/export?exportType={export}"
    answer = requests.get(url, headers=authorization, timeout=60)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "export")
    exported = list((tmp_path / "export" / "images").glob("*"))
    images = tmp_path / "export" / "images" if export.endswith("WITH_IMAGES") else photos
    assert len(exported) == (5 if images != photos else 0)

    told = run_json("register", images, "-p", str(second), "--labels", labels, "--as", "annotations", **options)

    before = {task["meta"]["sha256"]: boxes_of(task, "annotations") for task in client.tasks(first)}
    after = {task["meta"]["sha256"]: boxes_of(task, "annotations") for task in client.tasks(second)}
    assert (told["labelled"], told["labels_without_image"], after.keys()) == (5, 0, before.keys())
    for image, boxes in before.items():
        assert [box[:2] for box in after[image]] == [box[:2] for box in boxes]
        np.testing.assert_allclose([box[2:] for box in after[image]], [box[2:] for box in boxes], atol=0.1)
    assert sum(map(len, before.values())) > 40


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({"labels/0.txt": "0 0.5 0.5 0.1"}, [], "labels/0.txt:1 should be `class x y width height`"),
        ({"labels/0.txt": "2 0.5 0.5 0.1 0.1"}, [], 'labels/0.txt:1: "Dog" is no label of "label", which has RBC, WBC'),
        ({"labels/other.txt": ""}, [], "its 1 labels fit neither"),
        ({"labels/0.txt": ""}, ["--control", "boxes"], 'no control "boxes" that is served, but label'),
        ({"labels/0.txt": ""}, ["--classes", "no.yaml"], "no.yaml can't be read: No such file"),
        ({"labels/0.txt": ""}, ["-p", "999999"], "shows the token's user no project 999999, but "),
        ({"labels/0.txt": ""}, ["-p", "no such title"], 'No project is called "no such title"'),
        ({"labels/0.txt": ""}, ["--url", "http://127.0.0.1:1"], "doesn't answer at http://127.0.0.1:1"),
        ({"labels/0.txt": ""}, ["--token", "0" * 40], "refuses the token"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_nothing_is_registered(
    client: StudioClient,
    command_environment: dict[str, str],
    photos: Path,
    tmp_path: Path,
    files: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    project = client.create_project("what is wrong")
    for name, content in (files | {"classes.txt": "RBC\nWBC\nDog"}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    done = run_command(
        "register", photos, "-p", str(project), "--labels", "labels", *arguments,
        environment=command_environment, cwd=tmp_path,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert command_environment["LABEL_STUDIO_API_KEY"] not in done.stderr
    assert client.tasks(project) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos", "direct file upload supports only one data key"),
        ("s3://bucket/a.jpg", '"text" key is expected in task data'),
    ],
)
@pytest.mark.usefixtures("photos")
def test_what_label_studio_rejects_is_told_in_its_words(
    client: StudioClient, command_environment: dict[str, str], tmp_path: Path, source: str, message: str
) -> None:
    config = BCCD_CONFIG.replace("<Image ", '<Text name="text" value="$text"/><Image ')
    project = client.create_project("with a text", config)

    done = run_command("register", source, "-p", str(project), environment=command_environment, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Nothing is registered: Label Studio answers 400")
    assert message in done.stderr
    assert "bucket" not in done.stderr
    assert client.tasks(project) == []


def test_files_of_rejected_tasks_do_not_stay(
    client: StudioClient, label_studio: LabelStudioServer, personal_access_token: str, photos: Path
) -> None:
    """The other files of the project do."""
    for token in (personal_access_token, label_studio.legacy_token):
        project = open_project(Studio(label_studio.url, token), client.create_project("rejected"))
        (control,) = parse_labeling_config(BCCD_CONFIG).controls
        (kept,) = project.upload([("kept.jpg", (photos / "0.jpg").read_bytes())])
        unknown: Any = {"result": [{"from_name": "no such control"}], "model_version": "old"}

        with pytest.raises(RegisterError, match="Nothing is registered: Label Studio answers 400"):
            list(register(project, [Item(photos / "1.jpg", predictions=[unknown])], control))

        uploads = client.call("GET", f"/api/projects/{project.id}/file-uploads?all=true")
        assert [upload["id"] for upload in uploads] == [kept.id]


def test_a_project_lists_filters_and_changes_its_tasks(
    client: StudioClient, label_studio: LabelStudioServer, personal_access_token: str, image_server: ServedFolder
) -> None:
    for token in (personal_access_token, label_studio.legacy_token):
        studio = Studio(label_studio.url, token)
        project = open_project(studio, client.create_project("listed"))
        data = [{"image": f"{image_server.url}/{number}.jpg", "number": number} for number in range(1100)]
        ids = project.import_tasks([{"data": item} for item in data])

        listed = project.tasks(fields=["data"])
        first = [next(listed) for _ in range(10)]
        client.call("DELETE", f"/api/tasks/{ids[3]}/")  # behind, and ahead
        client.call("DELETE", f"/api/tasks/{ids[600]}/")
        rest = list(listed)

        assert [task["id"] for task in [*first, *rest]] == ids[:600] + ids[601:]
        assert rest[-1]["data"] == data[-1]
        assert (project.title, project.label_config, project.count()) == ("listed", BCCD_CONFIG.strip(), 1098)
        assert {"id": project.id, "title": "listed"} in [
            {key: found[key] for key in ("id", "title")} for found in projects_of(studio)
        ]
        newest = project.tasks(fields=["data"], newest_first=True)
        assert next(newest)["id"] == ids[-1]

        project.change_data(ids[0], data[0] | {"uncertainty": 0.25})
        region = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
        place = {"x": 1, "y": 1, "width": 2, "height": 2, "rotation": 0, "rectanglelabels": ["RBC"]}
        prediction = {"task": ids[0], "model_version": "v1", "score": 0.5, "result": [region | {"value": place}]}
        assert studio.import_predictions(project.id, [prediction]) == 1

        predicted = [task_filter("total_predictions", "greater", 0, "Number")]
        (task,) = project.tasks(predicted)
        assert (task["data"]["uncertainty"], project.count(predicted)) == (0.25, 1)
        project.delete_prediction(task["predictions"][0]["id"])
        project.delete_prediction(task["predictions"][0]["id"])  # gone already
        assert project.count(predicted) == 0
