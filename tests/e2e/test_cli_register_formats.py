"""`register --labels` on a real Label Studio: in each format, exported again, and back within a pixel."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.harness.command import run_command, run_json
from tests.harness.exported import corners, export, regions_by_name, without_origin, xyxy_of
from tests.harness.labels_on_disk import voc_of, yolo_boxes
from tests.harness.pictures import encode
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, uploaded_name

SHAPES_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="boxes" toName="image"><Label value="RBC"/><Label value="WBC"/></RectangleLabels>
  <PolygonLabels name="outlines" toName="image"><Label value="RBC"/><Label value="WBC"/></PolygonLabels>
  <BrushLabels name="masks" toName="image"><Label value="RBC"/></BrushLabels>
  <EllipseLabels name="ellipses" toName="image"><Label value="RBC"/></EllipseLabels>
  <KeyPointLabels name="points" toName="image"><Label value="Nucleus" model_index="0"/></KeyPointLabels>
  <Choices name="quality" toName="image"><Choice value="good"/><Choice value="bad"/></Choices>
</View>"""


@pytest.fixture
def photos(tmp_path: Path, bccd_files: list[Path]) -> Path:
    """Two photographs, and one that EXIF turns upright from 640x480 to 480x640."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, file in enumerate(bccd_files[:2]):
        (folder / f"{number}.jpg").write_bytes(file.read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(bccd_files[2]) as image:
        image.save(folder / "turned.jpg", exif=exif)
    return folder


def test_pascal_voc_there_and_back(
    client: StudioClient,
    command_environment: dict[str, str],
    photos: Path,
    bccd_files: list[Path],
    bccd_labels: Path,
    tmp_path: Path,
) -> None:
    """Its boxes are BCCD's own; Label Studio's export of them, which has whole pixels only, comes back, too."""
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    truth = {
        f"{number}.jpg": yolo_boxes(bccd_labels / f"{file.stem}.txt", (640, 480), ["RBC", "WBC", "Platelets"])
        for number, file in enumerate(bccd_files[:2])
    }
    truth["turned.jpg"] = [("WBC", (10.0, 500.0, 100.0, 640.0))]
    (tmp_path / "voc").mkdir()
    for name, boxes in truth.items():
        size_wh = (480, 640) if name == "turned.jpg" else (640, 480)
        (tmp_path / "voc" / f"{Path(name).stem}.xml").write_text(voc_of(name, size_wh, boxes))
    first, second = (client.create_project(f"voc {name}") for name in ("from", "to"))

    told = run_json("register", photos, "-p", str(first), "--labels", "voc", "--as", "annotations", **options)
    exported = export(client, first, "VOC", tmp_path / "export")
    run_json("register", photos, "-p", str(second), "--labels", exported, "--as", "annotations", **options)

    assert (told["labelled"], told["boxes"], told["odd"], told["changed"]) == (
        3, sum(map(len, truth.values())), [], {}
    )  # fmt: skip
    stored, back = (regions_by_name(client, project) for project in (first, second))
    for name, boxes in truth.items():
        assert [region["value"]["rectanglelabels"][0] for region in stored[name]] == [label for label, _ in boxes]
        wanted = [box for _, box in boxes]
        np.testing.assert_allclose([xyxy_of(region) for region in stored[name]], wanted, atol=1)
        # Label Studio cuts off fractions of a pixel, of a side and of where it begins.
        np.testing.assert_allclose([xyxy_of(region) for region in back[name]], wanted, atol=2.01)


def test_voc_of_the_file_as_it_lies_is_on_the_same_thing(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    """Of a file that EXIF turns a quarter to the right, its left upper corner is the page's right upper one."""
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "turned.xml").write_text(voc_of("turned.jpg", (640, 480), [("WBC", (0.0, 0.0, 64.0, 48.0))]))
    project = client.create_project("voc as it lies")
    command = ("register", photos, "-p", str(project), "--labels", "voc")

    run_json(*command, environment=command_environment, cwd=tmp_path)

    (region,) = next(
        task["predictions"][0]["result"] for task in client.tasks(project) if uploaded_name(task) == "turned.jpg"
    )
    assert (region["original_width"], region["original_height"]) == (480, 640)
    np.testing.assert_allclose(xyxy_of(region), [432, 0, 480, 64], atol=0.01)


def test_rotated_boxes_there_and_back(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    (tmp_path / "obb").mkdir()
    (tmp_path / "obb" / "classes.txt").write_text("RBC\nWBC\nPlatelets")
    for name, (width, height) in {"0": (640, 480), "1": (640, 480), "turned": (480, 640)}.items():
        lines = [
            obb_line(number % 3, center, sides, degrees, (width, height))
            for number, (center, sides, degrees) in enumerate(
                [((200, 200), (120, 40), 20), ((300, 300), (50, 90), 75), ((100, 350), (60, 60), -40)]
            )
        ]
        (tmp_path / "obb" / f"{name}.txt").write_text("\n".join(lines))
    first, second = (client.create_project(f"obb {name}") for name in ("from", "to"))

    told = run_json("register", photos, "-p", str(first), "--labels", "obb", "--as", "annotations", **options)
    exported = export(client, first, "YOLO_OBB", tmp_path / "export")
    run_json("register", photos, "-p", str(second), "--labels", exported, "--as", "annotations", **options)

    assert (told["boxes"], told["changed"]) == (9, {})
    stored, back = (regions_by_name(client, project) for project in (first, second))
    for name, regions in stored.items():
        assert all(region["value"]["rotation"] for region in regions)
        assert [each["value"]["rectanglelabels"] for each in back[name]] == [
            each["value"]["rectanglelabels"] for each in regions
        ]
        np.testing.assert_allclose(list(map(corners, back[name])), list(map(corners, regions)), atol=1)


def obb_line(
    number: int, center: tuple[float, float], sides: tuple[float, float], degrees: float, size_wh: tuple[int, int]
) -> str:
    """A rotated box as YOLO writes it: its corners in fractions of the image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    halves = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    points = [
        (
            center[0] + (x * sides[0] * cos - y * sides[1] * sin) / 2,
            center[1] + (x * sides[0] * sin + y * sides[1] * cos) / 2,
        )
        for x, y in halves
    ]
    return " ".join(map(str, [number, *(value for x, y in points for value in (x / size_wh[0], y / size_wh[1]))]))


def outline(center: Sequence[float], radius: float) -> list[list[float]]:
    """A star-like polygon in percent."""
    turns = [number * math.pi / 6 for number in range(12)]
    reach = [radius * (1 if number % 2 else 0.6) for number in range(12)]
    return [
        [center[0] + far * math.cos(turn), center[1] + far * math.sin(turn)]
        for far, turn in zip(reach, turns, strict=True)
    ]


@pytest.mark.parametrize(("kind", "labels"), [("YOLO", "export"), ("COCO", "export/result.json")])
def test_polygons_there_and_back(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path, kind: str, labels: str
) -> None:
    """Also on the turned image, for which Label Studio's COCO has them in pixels of the file as it lies."""
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    config = SHAPES_CONFIG.replace('<RectangleLabels name="boxes"', '<RectangleLabels name="cells"')
    config = "".join(line for line in config.splitlines(keepends=True) if "Brush" not in line and "Ellipse" not in line)
    config = "".join(line for line in config.splitlines(keepends=True) if "KeyPoint" not in line)
    first, second = (client.create_project(f"polygons {kind} {name}", config) for name in ("from", "to"))
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "classes.txt").write_text("RBC\nWBC")
    for name in ("0", "1", "turned"):
        numbers = [[value / 100 for point in outline(center, 15) for value in point] for center in ((30, 40), (60, 70))]
        lines = [" ".join(map(str, [label, *each])) for label, each in enumerate(numbers)]
        (tmp_path / "segments" / f"{name}.txt").write_text("\n".join(lines))

    told = run_json("register", photos, "-p", str(first), "--labels", "segments", "--as", "annotations", **options)
    export(client, first, kind, tmp_path / "export")
    back_told = run_json("register", photos, "-p", str(second), "--labels", labels, "--as", "annotations", **options)

    assert (told["boxes"], told["changed"], back_told["boxes"], back_told["changed"]) == (6, {}, 6, {})
    stored, back = (regions_by_name(client, project) for project in (first, second))
    for name, regions in stored.items():
        assert [region["type"] for region in [*regions, *back[name]]] == ["polygonlabels"] * 4
        for one, other in zip(regions, back[name], strict=True):
            assert one["value"]["polygonlabels"] == other["value"]["polygonlabels"]
            size = np.array([one["original_width"], one["original_height"]]) / 100
            wanted = np.array(one["value"]["points"]) * size
            np.testing.assert_allclose(np.array(other["value"]["points"]) * size, wanted, atol=1)


def test_label_studios_own_export_comes_back_as_it_was(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    first, second, boxes_only = (
        client.create_project(f"own {name}", config)
        for name, config in (("from", SHAPES_CONFIG), ("to", SHAPES_CONFIG), ("boxes", BCCD_CONFIG))
    )
    run_json("register", photos, "-p", str(first), **options)
    for task in client.tasks(first):
        size_wh = (480, 640) if uploaded_name(task) == "turned.jpg" else (640, 480)
        client.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": every_region(size_wh)})
    exported = export(client, first, "JSON", tmp_path / "export") / "export.json"

    told = run_json("register", photos, "-p", str(second), "--labels", exported, "--as", "annotations", **options)
    around = run_command(
        "register", photos, "-p", str(boxes_only), "--labels", exported, "--as", "annotations", **options
    )

    assert (told["labelled"], told["odd"], told["changed"]) == (3, [], {})
    before, after = (regions_by_name(client, project) for project in (first, second))
    assert without_origin(after) == without_origin(before)
    judge = LabelInterface(SHAPES_CONFIG)
    for regions in after.values():
        assert judge.validate_prediction({"result": regions, "model_version": "x"}, return_errors=True) == []
    assert around.returncode == 1, around.stderr
    for sentence in (
        "3 polygons became the boxes around them: the project has no PolygonLabels with their labels",
        "3 masks became the boxes around them: the project has no BrushLabels with their labels",
        "3 ellipses became the rotated boxes around them: the project has no EllipseLabels with their labels",
        "3 answers about the whole image are left out: the project has no control of that name and type for them",
    ):
        assert sentence in around.stderr
    for name, regions in regions_by_name(client, boxes_only).items():
        kinds = [region["type"] for region in regions]
        assert kinds == ["rectanglelabels"] * 4, name


def every_region(size_wh: tuple[int, int]) -> list[dict[str, Any]]:
    """One region of each control but the key points."""
    from label_studio_sdk.converter.brush import encode_rle

    pixels = np.zeros((size_wh[1], size_wh[0], 4), np.uint8)
    pixels[20:90, 40:80] = 255
    values: list[tuple[str, str, dict[str, Any]]] = [
        ("boxes", "rectanglelabels", {"x": 10, "y": 20, "width": 30, "height": 10, "rotation": 12.5}),
        ("outlines", "polygonlabels", {"points": outline((50, 50), 20), "closed": True}),
        ("masks", "brushlabels", {"format": "rle", "rle": encode_rle(pixels.ravel())}),
        ("ellipses", "ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 30}),
    ]
    common = {"to_name": "image", "original_width": size_wh[0], "original_height": size_wh[1], "image_rotation": 0}
    regions = [
        {**common, "id": f"r{number}", "from_name": name, "type": kind, "value": {**value, kind: ["RBC"]}}
        for number, (name, kind, value) in enumerate(values)
    ]
    choice = {"id": "c", "from_name": "quality", "to_name": "image", "type": "choices", "value": {"choices": ["good"]}}
    return [*regions, choice]


def test_odd_lines_are_told_and_the_rest_is_registered(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    project = client.create_project("odd lines")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "classes.txt").write_text("RBC\nWBC")
    (tmp_path / "labels" / "0.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0.5 0.5\n7 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n")
    (tmp_path / "labels" / "1.txt").write_text("0 0.5\n")

    done = run_command(
        "register", photos, "-p", str(project), "--labels", "labels", "--as", "annotations",
        environment=command_environment, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 1
    assert "Registered 3 of 3 images" in done.stdout
    assert "1 of them with 2 boxes as annotations" in done.stdout
    assert "Lines or entries left out because they can't be read: 3" in done.stderr
    assert "labels/0.txt:2 should be `class x y width height`" in done.stderr
    assert "labels/0.txt:3: class 7 isn't one of the 2 in labels/classes.txt" in done.stderr
    annotated = {uploaded_name(task): len(task["annotations"]) for task in client.tasks(project)}
    assert annotated == {"0.jpg": 1, "1.jpg": 0, "turned.jpg": 0}


def test_a_broken_image_and_relations_cost_only_themselves(
    client: StudioClient, command_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    """Both of a real export: a relation between two boxes, and a file that was cut short after it."""
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    first, second = (client.create_project(f"relations {name}") for name in ("from", "to"))
    told = run_json("register", photos, "-p", str(first), **options)
    common = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "image_rotation": 0}
    place = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["RBC"]}
    for task_id in told["task_ids"]:
        boxes = [
            {"id": name, "value": place, "original_width": 640, "original_height": 480, **common}
            for name in ("one", "two")
        ]
        relation = {"from_id": "one", "to_id": "two", "type": "relation", "direction": "right", "labels": []}
        client.annotate(task_id, [*boxes, relation])
    exported = export(client, first, "JSON", tmp_path / "export")
    (photos / "turned.jpg").unlink()
    (photos / "1.jpg").write_bytes((photos / "1.jpg").read_bytes()[:8000])

    done = run_command(
        "register", photos, "-p", str(second), "--labels", exported / "export.json", "--as", "annotations", **options
    )

    assert done.returncode == 1
    assert "Registered 1 of 1 images" in done.stdout
    assert "1 of them with 2 boxes as annotations" in done.stdout
    lines = done.stderr.splitlines()
    assert [line for line in lines if "relation" in line] == ["1 relations between regions are left out"]
    assert f"  {photos}/1.jpg: is cut short: copy it again" in lines
    (task,) = client.tasks(second)
    assert uploaded_name(task) == "0.jpg"
    (annotation,) = task["annotations"]
    assert [region["type"] for region in annotation["result"]] == ["rectanglelabels"] * 2


def test_scans_are_converted_and_keep_their_labels(
    client: StudioClient, command_environment: dict[str, str], tmp_path: Path, label_studio: Any
) -> None:
    """A TIFF of 16 bits, with labels by the name of the TIFF; and files that are left alone."""
    project = client.create_project("scans")
    grey = (np.arange(200 * 100, dtype=np.uint16).reshape(100, 200) * 3).astype(np.uint16)
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.tif").write_bytes(encode(Image.fromarray(grey), "TIFF"))
    (scans / "b.dcm").write_bytes(bytes(128) + b"DICM")
    (scans / "movie.mp4").write_bytes(b"x")
    (scans / "notes.txt").write_bytes(b"x")
    box = {"label": "RBC", "x": 20, "y": 10, "width": 100, "height": 50}
    (tmp_path / "old.jsonl").write_text(json.dumps({"image": "a.tif", "boxes": [box]}))
    command = ("register", "scans", "-p", str(project), "--labels", "old.jsonl", "--convert", "made")
    options: Any = {"environment": command_environment, "cwd": tmp_path}

    dry = run_command(*command, "--dry-run", **options)
    is_made = (tmp_path / "made").exists()
    done = run_command(*command, **options)
    again = run_json(*command, **options)

    assert (dry.returncode, is_made, done.returncode) == (0, False, 0), dry.stderr + done.stderr
    assert "Would register 1 of 1 images" in dry.stdout
    assert "2 files left alone: .mp4, .txt" in done.stderr
    assert "Not registered, 1 file: scans/b.dcm: is a DICOM" in done.stderr
    assert "Made 1 image in made of .tif" in done.stderr
    assert (again["registered"], again["left_out"], again["converted"]) == (0, 1, 1)
    assert again["left_alone"] == {".mp4": 1, ".txt": 1}
    (task,) = client.tasks(project)
    assert uploaded_name(task) == "a.png"
    (region,) = task["predictions"][0]["result"]
    np.testing.assert_allclose(xyxy_of(region), [20, 10, 120, 60], atol=0.01)
    headers = {"Authorization": f"Token {label_studio.legacy_token}"}
    uploaded = requests.get(label_studio.url + task["data"]["image"], headers=headers, timeout=30)
    with Image.open(io.BytesIO(uploaded.content)) as image:
        np.testing.assert_array_equal(np.asarray(image)[..., 0], grey >> 8)
